"""The environment: both forms, forks, hostile actions, the suite."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.core import Reset, Step
from palaestra.envs.countdown.env import CountdownEnv
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.registry import spec
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import ConfigError, DataError, EnvError, UnknownNameError

ID = "countdown/Numbers-v0"


def own(**params: Any) -> Task:
    return Task(env=ID, name="own", params={"numbers": [3, 5, 8], "target": 64, "form": "steps", **params})


def play(task: Task, *actions: Any) -> tuple[Reset[str], list[Step[str]]]:
    async def go() -> tuple[Reset[str], list[Step[str]]]:
        env = CountdownEnv()
        return await env.reset(task=task), [await env.step(action) for action in actions]

    return asyncio.run(go())


@pytest.mark.parametrize("level", ["steps-3", "tinyzero"])
def test_it_keeps_the_contract(level: str) -> None:
    report = check_env(msgspec.structs.replace(spec(ID), kwargs={"level": level}), seeds=(0, 1))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_steps_lead_to_the_target() -> None:
    first, (one, two) = play(own(), "5 + 3", "8 * 8")
    assert first.observation.endswith("\nNumbers: 3, 5, 8. Target: 64.")
    assert "8 * 5" in first.info["admissible_commands"]
    assert one.observation == "5 + 3 = 8.\nNumbers: 8, 8. Target: 64."
    assert (one.reward, one.terminated) == (0, False)
    assert (two.reward, two.terminated, two.info["success"], two.info["score"]) == (1, True, True, 1)


def test_the_last_number_ends_the_episode() -> None:
    _, (_, last) = play(own(), "5 + 3", "8 + 8")
    assert (last.reward, last.terminated, last.info["success"]) == (0, True, False)
    assert last.info["admissible_commands"] == []


def test_where_some_may_be_left_over_the_target_is_enough() -> None:
    _, (step,) = play(own(target=40, use="any"), "5 * 8")
    assert (step.reward, step.terminated) == (1, True)
    _, (step,) = play(own(target=40), "5 * 8")
    assert (step.reward, step.terminated) == (0, False)


def test_what_cannot_be_done_takes_a_turn_and_changes_nothing() -> None:
    actions = ["5 + 5", "3 - 5", "5 / 3", "9**9**9", None, "x" * 10**6]
    _, steps = play(own(), *actions)
    for step in steps:
        assert step.info["invalid"]
        assert step.observation == "Nothing happens.\nNumbers: 3, 5, 8. Target: 64."
    assert [step.truncated for step in steps] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("action", "reward", "told"),
    [
        ("<answer>(3 + 5) * 8</answer>", 1.0, "right"),
        ("<answer>3 + 5 + 8</answer>", 0.1, "That is 16, not 64"),
        ("<answer>3 / 5 * 8</answer>", 0.1, "That is 24/5, not 64"),
        ("<answer>3 + 5</answer>", 0.1, "not the numbers"),
        ("<answer>" + "(" * 300 + "</answer>", 0.1, "no expression"),
        ("<answer>__import__('os')</answer>", 0.1, "no expression"),
        ("<answer>1/0</answer>", 0.1, "not the numbers"),
        ("I do not know", 0.0, "no answer"),
        ("x" * 10**6, 0.0, "no answer"),
        (None, 0.0, "no answer"),
        ({"content": "<answer>1</answer>"}, 0.0, "no answer"),
    ],
)
def test_one_answer_ends_the_episode(action: Any, reward: float, told: str) -> None:
    first, (step,) = play(own(form="answer"), action)
    assert "admissible_commands" not in first.info
    assert "<answer>" in first.observation
    assert (step.reward, step.terminated, step.truncated) == (reward, True, False)
    assert told in step.observation
    assert step.info["success"] == (reward == 1)
    assert step.info["invalid"] == (reward == 0)


@pytest.mark.parametrize("level", ["steps-3", "steps-4", "tinyzero", "show", "show-steps"])
def test_the_oracle_solves_every_level(level: str) -> None:
    async def solve(task: Task) -> bool:
        async with make(ID) as env:
            await env.reset(task=task)
            while not (step := await env.step(await env.oracle())).terminated:
                assert not step.truncated
            return bool(step.info["success"])

    assert all(asyncio.run(solve(task)) for task in load_suite(f"countdown/{level}:test[0:15]"))


def test_the_oracle_names_something_where_nothing_helps() -> None:
    async def go(form: str) -> str:
        env = CountdownEnv()
        await env.reset(task=own(numbers=[1, 1], target=7, form=form))
        return str(await env.oracle())

    assert asyncio.run(go("steps")) == "1 + 1"
    assert asyncio.run(go("answer")) == "<answer></answer>"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 100), min_size=2, max_size=6), st.data())
def test_siblings_equal_the_episode_that_they_left(seed: int, choices: list[int], data: Any) -> None:
    async def go() -> None:
        async with make(ID, level="show-steps") as env:
            first = await env.reset(seed=seed)
            commands = first.info["admissible_commands"]
            if (await env.step(commands[choices[0] % len(commands)])).terminated:
                return
            siblings = [env, *await env.fork(2), *await fork_by_replay(env, 1)]
            went: list[list[Any]] = [[] for _ in siblings]
            for i in data.draw(st.permutations([i for i in range(4) for _ in choices[1:]])):
                if went[i] and (went[i][-1].terminated or went[i][-1].truncated):
                    continue
                possible = went[i][-1].info["admissible_commands"] if went[i] else ["nonsense"]
                went[i].append(await siblings[i].step(possible[choices[1 + len(went[i])] % len(possible)]))
            assert went[1:] == went[:1] * 3

    asyncio.run(go())


@pytest.mark.parametrize(
    ("params", "error", "told"),
    [
        ({"level": "steps-9", "split": "test", "index": 1}, UnknownNameError, "level"),
        ({"level": "steps-3", "split": "dev", "index": 1}, UnknownNameError, "split"),
        ({"level": "steps-3", "split": "test", "index": "1"}, DataError, "index"),
        ({"numbers": [1], "target": 2}, DataError, "list of 2 to 8"),
        ({"numbers": "123", "target": 2}, DataError, "list of 2 to 8"),
        ({"numbers": [1] * 9, "target": 2}, DataError, "list of 2 to 8"),
        ({"numbers": [1, "2"], "target": 2}, DataError, "number of"),
        ({"numbers": [1, 10**6], "target": 2}, DataError, "number of"),
        ({"numbers": [1, -2], "target": 2}, DataError, "number of"),
        ({"numbers": [1, 2], "target": 10**5000}, DataError, "target"),
        ({"numbers": [1, 2]}, DataError, "target"),
        ({"numbers": [1, 2], "target": 3, "form": "essay"}, DataError, "form"),
        ({"numbers": [1, 2], "target": 2, "form": "steps", "use": "any"}, DataError, "already"),
        ({"numbers": [1, 2], "target": 3, "form": "steps", "max_turns": 0}, DataError, "max_turns"),
    ],
)
def test_params_that_describe_no_puzzle_are_refused(params: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        asyncio.run(CountdownEnv().reset(task=Task(env=ID, name="x", params=params)))


def test_the_suite_names_its_levels_and_options() -> None:
    assert load_suite("countdown/steps-4:train", max_turns=5)[2].params["max_turns"] == 5
    with pytest.raises(UnknownNameError, match="'tinyzero'"):
        load_suite("countdown/tinyzer:test")
    with pytest.raises(UnknownNameError, match="'validation'"):
        load_suite("countdown:valid")
    with pytest.raises(ConfigError, match="largest"):
        load_suite("countdown:test", largest=3)


def test_nothing_is_played_before_reset_or_after_close() -> None:
    async def go() -> None:
        env = CountdownEnv()
        with pytest.raises(EnvError, match="reset"):
            await env.step("1 + 1")
        await env.reset(seed=1)
        assert (await env.render()).startswith("Numbers: ")
        await env.close()
        for call in (env.oracle, env.render, env.snapshot):
            with pytest.raises(EnvError, match="reset"):
                await call()

    asyncio.run(go())
