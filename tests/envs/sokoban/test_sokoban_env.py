"""The environment: what is said, what it costs, several moves at once, forks, hostile actions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.core import Reset, Step
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.grids import NOTHING_HAPPENS, canonical, directions, symmetries
from palaestra.envs.sokoban.env import SokobanEnv
from palaestra.envs.sokoban.generate import LEVELS, generate, layout
from palaestra.envs.sokoban.room import solved
from palaestra.envs.tasks import SPLITS, Task, load_suite
from palaestra.errors import ConfigError, DataError, EnvError, UnknownNameError

ID = "sokoban/Text-v0"
HALL = "P_X_O_"


def own(room: str = HALL, **params: Any) -> Task:
    return Task(env=ID, name="own", params={"room": room, **params})


def play(task: Task, *actions: Any) -> tuple[Reset[str], list[Step[str]]]:
    async def go() -> tuple[Reset[str], list[Step[str]]]:
        env = SokobanEnv()
        return await env.reset(task=task), [await env.step(action) for action in actions]

    return asyncio.run(go())


def test_it_keeps_the_contract() -> None:
    report = check_env(ID, seeds=(0, 1))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_rewards_are_those_of_the_paper() -> None:
    first, steps = play(own(), "right", "right", "right")
    assert first.observation.startswith("Push every box on a target. # is a wall")
    assert first.observation.endswith("########\n#P_X_O_#\n########")
    assert first.info["admissible_commands"] == ["right"]
    assert [round(step.reward, 6) for step in steps] == [-0.1, -0.1, 10.9]
    assert [step.terminated for step in steps] == [False, False, True]
    assert steps[-1].observation == "########\n#___P√_#\n########"
    assert steps[-1].info["success"]
    assert steps[-1].info["score"] == pytest.approx(10.7)


def test_a_box_off_its_target_costs_one() -> None:
    _, steps = play(own("P√_X_O__"), "right", "left")
    assert [round(step.reward, 6) for step in steps] == [-1.1, -0.1]


def test_what_changes_nothing_is_invalid_and_costs_a_move() -> None:
    task = own(max_turns=5)
    _, steps = play(task, "up", "dance", "", None, "right, right")
    for step in steps:
        assert step.info["invalid"]
        assert step.observation.startswith(NOTHING_HAPPENS)
        assert step.reward == pytest.approx(-0.1)
    assert [step.truncated for step in steps] == [False] * 4 + [True]
    assert not steps[-1].terminated


def test_several_moves_at_once_are_as_one_after_another() -> None:
    task = own(moves_per_action=4)
    first, (step,) = play(task, "right, right,right")
    assert "up to 4 at once" in first.observation
    assert step.reward == pytest.approx(10.7)
    assert step.terminated
    assert not step.info["invalid"]
    _, (more,) = play(task, "right || right || right || right")
    assert (more.reward, more.info["score"]) == (step.reward, step.info["score"])
    assert play(task, "right, up")[1][0].info["invalid"]
    assert play(own(moves_per_action=4, max_turns=2), "right,right,right")[1][0].truncated


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("up", "up"),
        (" Up. ", "up"),
        ("D", "down"),
        ("move left", "left"),
        ("push RIGHT", "right"),
        ("I go round it. <action>up</action>", "up"),
        ("<think>up</think><answer>Down</answer>", "down"),
    ],
)
def test_directions_have_several_names(said: str, meant: str) -> None:
    assert directions(said) == [meant]


@pytest.mark.parametrize(
    "said",
    ["", "x" * 10**6, "up" * 10**6, "up,", ",", "up down", "սp", "u\x00p", "ｕｐ", b"up", 7, None, ["up"], "<action>"],
)
def test_what_is_no_direction_is_none(said: object) -> None:
    assert directions(said, 4) is None


def test_more_directions_than_allowed_are_none() -> None:
    assert directions("up, down", 2) == ["up", "down"]
    assert directions("up, down", 1) is None


@given(st.text(max_size=300))
def test_any_text_is_an_answer_or_none(text: str) -> None:
    assert directions(text, 3) is None or set(directions(text, 3) or ()) <= {"up", "down", "left", "right"}


def test_a_grid_has_one_name_in_eight_positions() -> None:
    rows = ("#P_", "O_X")
    found = set(symmetries(rows))
    assert len(found) == 8
    assert rows in found
    assert len({canonical(position) for position in found}) == 1


def test_the_oracle_solves_every_level_from_wherever_it_is_asked() -> None:
    async def solve(level: str, index: int, detour: int) -> None:
        task = load_suite(f"sokoban/{level}:test")[index]
        async with make(ID) as env:
            step: Any = await env.reset(task=task)
            for _ in range(detour):
                before = env.unwrapped._state  # type: ignore[attr-defined]
                options = step.info["admissible_commands"]
                step = await env.step(options[0])
                if env.unwrapped._state.boxes != before.boxes:  # type: ignore[attr-defined]
                    return  # a push may lose the room
            while not (step := await env.step(await env.oracle())).terminated:
                assert not step.truncated
                assert not step.info["deadlock"]
            assert step.info["success"]

    for level, n in (("tiny", 8), ("small", 8), ("medium", 5), ("large", 1)):
        for index in range(n):
            asyncio.run(solve(level, index, 0))
            asyncio.run(solve(level, index, 2))


def test_in_a_lost_room_the_oracle_moves_on() -> None:
    async def go() -> None:
        env = SokobanEnv()
        first = await env.reset(task=own("X__\n_P_\n_O_"))
        assert first.info["deadlock"]
        assert await env.oracle() in first.info["admissible_commands"]

    asyncio.run(go())


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["small", "medium"]),
    st.integers(0, 1000),
    st.lists(st.sampled_from(["up", "down", "left", "right", "nonsense"]), min_size=2, max_size=20),
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
                if not (went[i] and went[i][-1][2]):
                    went[i].append(await siblings[i].step(moves[half + len(went[i])]))
            assert went[1:] == went[:1] * 3

    asyncio.run(go())


def test_splits_share_no_layout_and_rooms_are_the_levels() -> None:
    for level in ("tiny", "small", "medium"):
        layouts = {}
        for split in SPLITS:
            rooms = [generate(level, split, index) for index in range(70)]
            layouts[split] = {layout(room) for room, _ in rooms}
            assert not any(solved(room, state) or state.boxes & room.targets for room, state in rooms)
            assert all(room.width == room.height == LEVELS[level].side for room, _ in rooms)
        assert not layouts["train"] & layouts["test"]
        assert not layouts["train"] & layouts["validation"]
        assert not layouts["validation"] & layouts["test"]


def test_the_suite_passes_its_options_on() -> None:
    suite = load_suite("sokoban/tiny:validation", moves_per_action=3, max_turns=9)
    assert suite[5].params == {
        "level": "tiny", "split": "validation", "index": 5, "moves_per_action": 3, "max_turns": 9,
    }  # fmt: skip
    assert load_suite("sokoban:test")[0].kind == "small"
    with pytest.raises(ConfigError, match="size"):
        load_suite("sokoban/tiny:test", size=3)
    with pytest.raises(DataError, match="max_turns"):
        load_suite("sokoban/tiny:test", max_turns=0)
    with pytest.raises(UnknownNameError, match="'medium'"):
        load_suite("sokoban/medum:test")
    with pytest.raises(UnknownNameError, match="'validation'"):
        load_suite("sokoban:valid")


@pytest.mark.parametrize(
    ("params", "error", "told"),
    [
        ({"level": "huge", "split": "test", "index": 1}, UnknownNameError, "level"),
        ({"level": "small", "split": "dev", "index": 1}, UnknownNameError, "split"),
        ({"level": "small", "split": "test", "index": -1}, DataError, "index"),
        ({"level": "small", "split": "test"}, DataError, "index"),
        ({"level": "small", "split": "test", "index": 1, "max_turns": "9" * 10**6}, DataError, "max_turns"),
        ({"room": HALL, "moves_per_action": True}, DataError, "moves_per_action"),
        ({"room": "P√"}, DataError, "solved already"),
        ({"room": "P"}, DataError, "targets"),
        ({"room": HALL, "max_turns": 10**9999}, DataError, "far larger"),
        ({}, DataError, "index"),
    ],
)
def test_params_that_describe_no_room_are_refused(params: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        asyncio.run(SokobanEnv().reset(task=Task(env=ID, name="x", params=params)))


def test_nothing_is_played_before_reset_or_after_close() -> None:
    async def go() -> None:
        env = SokobanEnv()
        with pytest.raises(EnvError, match="reset"):
            await env.step("up")
        first = await env.reset(seed=1)
        assert (await env.render()).startswith("move 0 of 30, score 0.0\n#")
        await env.close()
        await env.close()
        for call in (env.oracle, env.render, env.snapshot):
            with pytest.raises(EnvError, match="reset"):
                await call()
        assert first == await env.reset(seed=1)

    asyncio.run(go())
