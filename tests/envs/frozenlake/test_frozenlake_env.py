"""The environment: what is said and paid, how it slips, forks, hostile actions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.core import Step
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.frozenlake.env import FrozenLakeEnv
from palaestra.envs.grids import DIRECTIONS, NOTHING_HAPPENS
from palaestra.envs.registry import spec
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import ConfigError, DataError, EnvError, UnknownNameError

ID = "frozenlake/Text-v0"
SEEDS = {"4x4": (0, 1), "slippery-4x4": (0, 1)}
CLASSIC = ["SFFF", "FHFH", "FFFH", "HFFG"]


def own(lines: list[str] = CLASSIC, **params: Any) -> Task:
    return Task(env=ID, name="own", params={"map": lines, **params})


def play(task: Task, actions: list[Any], seed: int = 0) -> list[Step[str]]:
    async def go() -> list[Step[str]]:
        env = FrozenLakeEnv()
        await env.reset(task=task, seed=seed)
        return [await env.step(action) for action in actions]

    return asyncio.run(go())


@pytest.mark.parametrize("level", ["4x4", "slippery-4x4"])
def test_it_keeps_the_contract(level: str) -> None:
    """Seeds on which the oracle does not slip to its end."""
    report = check_env(msgspec.structs.replace(spec(ID), kwargs={"level": level}), seeds=SEEDS[level])
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_the_goal_pays_and_a_hole_ends() -> None:
    steps = play(own(), ["down", "down", "right", "right", "down", "right"])
    assert [step.reward for step in steps] == [0, 0, 0, 0, 0, 1]
    assert [step.terminated for step in steps] == [False] * 5 + [True]
    assert steps[-1].info["success"]
    assert steps[-1].info["score"] == 1
    assert steps[-1].observation == "____\n_O_O\n___O\nO__√"
    (_, fallen) = play(own(), ["right", "down"])
    assert (fallen.reward, fallen.terminated, fallen.info["success"]) == (0, True, False)
    assert fallen.observation == "____\n_X_O\n___O\nO__G"


def test_what_makes_no_sense_takes_a_turn_and_changes_nothing() -> None:
    steps = play(own(max_turns=6), ["up", "swim", "right, right", None, "x" * 10**6, "u\u0440"])
    for step in steps:
        assert step.info["invalid"]
        assert step.observation == f"{NOTHING_HAPPENS}\nP___\n_O_O\n___O\nO__G"
    assert [step.truncated for step in steps] == [False] * 5 + [True]


def test_slipping_has_three_ways_alike_and_depends_on_the_seed() -> None:
    task = own(["FFF", "FSF", "FFG"], slippery=True)
    found = Counter(play(task, ["up"], seed)[0].observation for seed in range(600))
    assert set(found) == {"_P_\n___\n__G", "___\nP__\n__G", "___\n__P\n__G"}
    assert all(150 < n < 250 for n in found.values())
    assert play(task, ["up"] * 3, 5) == play(task, ["up"] * 3, 5)
    assert "slippery" in asyncio.run(FrozenLakeEnv("slippery-4x4").reset(seed=1)).observation


def test_the_oracle_solves_what_is_not_slippery_and_most_of_what_is() -> None:
    async def solve(level: str, index: int) -> bool:
        task = load_suite(f"frozenlake/{level}:test")[index]
        async with make(ID) as env:
            await env.reset(task=task)
            while True:
                step = await env.step(await env.oracle())
                if step.terminated or step.truncated:
                    return bool(step.info["success"])

    won = {level: sum(asyncio.run(solve(level, i)) for i in range(30)) for level in ("4x4", "8x8", "slippery-4x4")}
    assert won["4x4"] == won["8x8"] == 30
    assert won["slippery-4x4"] > 12


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["8x8", "slippery-4x4", "slippery-8x8"]),
    st.integers(0, 1000),
    st.lists(st.sampled_from([*DIRECTIONS, "nonsense"]), min_size=2, max_size=16),
    st.data(),
)
def test_siblings_equal_the_episode_that_they_left(level: str, seed: int, moves: list[str], data: Any) -> None:
    half = len(moves) // 2

    async def go() -> None:
        async with make(ID, level=level) as env:
            await env.reset(seed=seed)
            for name in moves[:half]:
                if (await env.step(name)).terminated:
                    return
            siblings = [env, *await env.fork(2), *await fork_by_replay(env, 1)]
            went: list[list[Any]] = [[] for _ in siblings]
            for i in data.draw(st.permutations([i for i in range(4) for _ in moves[half:]])):
                if not (went[i] and went[i][-1].terminated):
                    went[i].append(await siblings[i].step(moves[half + len(went[i])]))
            assert went[1:] == went[:1] * 3

    asyncio.run(go())


@pytest.mark.parametrize(
    ("params", "error", "told"),
    [
        ({"level": "5x5", "split": "test", "index": 1}, UnknownNameError, "level"),
        ({"level": "4x4", "split": "dev", "index": 1}, UnknownNameError, "split"),
        ({"level": "4x4", "split": "test", "index": 1.5}, DataError, "index"),
        ({"map": CLASSIC, "slippery": "no"}, DataError, "slippery"),
        ({"map": CLASSIC, "max_turns": 0}, DataError, "max_turns"),
        ({"map": 3}, DataError, "list of lines"),
    ],
)
def test_params_that_describe_no_lake_are_refused(params: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        asyncio.run(FrozenLakeEnv().reset(task=Task(env=ID, name="x", params=params)))


def test_the_suite_names_its_levels_and_options() -> None:
    assert load_suite("frozenlake/8x8:train", max_turns=7)[2].params["max_turns"] == 7
    with pytest.raises(UnknownNameError, match="'slippery-4x4'"):
        load_suite("frozenlake/slipery-4x4:test")
    with pytest.raises(UnknownNameError, match="'validation'"):
        load_suite("frozenlake:valid")
    with pytest.raises(ConfigError, match="holes"):
        load_suite("frozenlake:test", holes=3)


def test_nothing_is_played_before_reset_or_after_close() -> None:
    async def go() -> None:
        env = FrozenLakeEnv()
        with pytest.raises(EnvError, match="reset"):
            await env.step("up")
        await env.reset(seed=1)
        assert (await env.render()).startswith("step 0 of 20\n")
        await env.close()
        for call in (env.oracle, env.render, env.snapshot):
            with pytest.raises(EnvError, match="reset"):
                await call()

    asyncio.run(go())
