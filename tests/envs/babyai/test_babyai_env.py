"""BabyAI as text: what is said, what counts, snapshots, the oracle."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'palaestra[babyai]'")

from palaestra import make
from palaestra.envs.babyai.env import NOTHING_HAPPENS, BabyAIEnv
from palaestra.envs.babyai.levels import begin, levels
from palaestra.envs.babyai.words import COMMANDS, admissible
from palaestra.envs.checker import check_env
from palaestra.envs.core import Step
from palaestra.envs.episode import seen
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError, UnknownNameError

pytestmark = pytest.mark.integration

LEVELS = ["GoToLocal", "PutNextLocal", "UnlockPickup", "PickupDist", "OpenDoorLoc", "KeyInBox", "BossLevel"]


def game_task(**params: Any) -> Task:
    return Task(env="babyai/Text-v0", name="t", params=params)


def test_it_keeps_the_contract() -> None:
    report = check_env("babyai/Text-v0", seeds=(0, 1))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_the_view_is_told_in_steps() -> None:
    async def play() -> None:
        env = BabyAIEnv()
        first = await env.reset(task=game_task(level="GoToLocalS5N2", seed=1))
        mission, view = first.observation.split("\n")
        assert mission.startswith("Your task is to go to ")
        assert view.startswith("You see a ")
        assert "step" in view
        assert view.endswith(".")
        turned = first
        for _ in range(4):
            turned = await env.step("turn left")
        assert turned.observation == view

    asyncio.run(play())


def test_what_is_carried_is_told() -> None:
    async def play() -> str:
        env = BabyAIEnv("PickupDist")
        await env.reset(seed=0)
        while True:
            step = await env.step(await env.oracle())
            if step.terminated:
                assert step.info["success"]
                return step.observation

    assert "\nYou carry a " in asyncio.run(play())


def test_a_command_that_makes_no_sense_takes_a_turn_and_changes_nothing() -> None:
    async def play() -> None:
        env = BabyAIEnv()
        first = await env.reset(task=game_task(level="GoToLocal", seed=1, max_turns=3))
        view = first.observation.split("\n", 1)[1]
        for action in ("dance" * 200_000, "tоggle", 7):  # a letter of another alphabet
            step = await env.step(action)  # type: ignore[arg-type]
            assert step.observation == f"{NOTHING_HAPPENS}\n{view}"
            assert step.info["invalid"]
        assert step.truncated
        assert not step.terminated

    asyncio.run(play())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(LEVELS), st.integers(0, 10_000), st.lists(st.sampled_from(sorted(COMMANDS)), max_size=25))
def test_a_command_is_admissible_exactly_if_it_changes_the_game(level: str, seed: int, commands: list[str]) -> None:
    game = begin(level, seed)
    for command in commands:
        game.step(COMMANDS[command])
    for command, action in COMMANDS.items():
        tried = copy.deepcopy(game)
        tried.step(action)
        assert (state(tried) != state(game)) == (command in admissible(game))


def state(game: Any) -> tuple[Any, ...]:
    carried = game.carrying.encode() if game.carrying else ()
    return game.grid.encode().tobytes(), tuple(map(int, game.agent_pos)), int(game.agent_dir), carried


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(LEVELS),
    st.integers(0, 10_000),
    st.lists(st.sampled_from([*sorted(COMMANDS), "nonsense"]), min_size=2, max_size=30),
    st.data(),
)
def test_siblings_equal_the_episode_that_they_left(level: str, seed: int, commands: list[str], data: Any) -> None:
    """Snapshot forks and replay forks, stepped in any order, go on as the one that nobody forked."""
    half = len(commands) // 2

    async def play() -> None:
        async with make("babyai/Text-v0", level=level) as env, make("babyai/Text-v0", level=level) as alone:
            await env.reset(seed=seed)
            await alone.reset(seed=seed)
            expected = [seen("", step) for step in await run(alone, commands)][half:]
            before = await run(env, commands[:half])
            if before and before[-1].terminated:
                return
            siblings = [env, *await env.fork(2), *await fork_by_replay(env, 1)]
            went: list[list[str]] = [[] for _ in siblings]
            order = data.draw(st.permutations([i for i in range(len(siblings)) for _ in expected]))
            for i in order:
                step = await siblings[i].step(commands[half + len(went[i])])
                went[i].append(seen("", step))
            assert went == [expected] * len(siblings)
            assert [await sibling.oracle() for sibling in siblings] == [await env.oracle()] * len(siblings)

    asyncio.run(play())


async def run(env: Any, commands: list[str]) -> list[Step[str]]:
    steps: list[Step[str]] = []
    for command in commands:
        if steps and (steps[-1].terminated or steps[-1].truncated):
            break
        steps.append(await env.step(command))
    return steps


def test_the_oracle_solves_levels_of_every_kind() -> None:
    async def solve(level: str) -> bool:
        async with make("babyai/Text-v0", level=level) as env:
            await env.reset(seed=1)
            while True:
                step = await env.step(await env.oracle())
                if step.terminated or step.truncated:
                    return bool(step.info["success"]) and 0 < step.reward == step.info["score"] <= 1

    for level in ("GoToLocal", "PutNextLocal", "UnlockPickup", "OpenDoor", "GoToSeqS5R2", "BlockedUnlockPickup"):
        assert asyncio.run(solve(level)), level


def test_the_oracle_always_answers_even_where_the_bot_gives_up() -> None:
    """Boxes opened, keys dropped, and levels that the bot's authors know it cannot solve."""

    async def play(level: str) -> None:
        async with make("babyai/Text-v0", level=level) as env:
            step: Any = await env.reset(seed=2)
            for turn in range(40):
                assert await env.oracle() in COMMANDS
                commands = step.info["admissible_commands"]
                step = await env.step("toggle" if "toggle" in commands else commands[turn % len(commands)])
                if step.terminated or step.truncated:
                    return

    for level in ("KeyInBox", "UnlockToUnlock", "PutNextS5N2Carrying", "OneRoomS8"):
        asyncio.run(play(level))


def test_generation_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(20):
        begin("PutNextLocalS5N3", seed)
    assert capfd.readouterr() == ("", "")


def test_every_level_begins() -> None:
    assert len(levels()) > 90
    assert all(begin(level, 0).mission for level in levels())


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"level": "GoToLocl", "seed": 1}, UnknownNameError, "GoToLocal"),
        ({"level": "GoToLocal", "split": "dev", "index": 1}, UnknownNameError, "split"),
        ({"level": "GoToLocal", "split": "test", "index": "one"}, DataError, "index"),
        ({"level": "GoToLocal", "seed": -1}, DataError, "seed"),
        ({"level": "GoToLocal", "seed": 2**64}, DataError, "seed"),
        ({"level": "GoToLocal", "seed": 1, "max_turns": 0}, DataError, "max_turns"),
        ({"split": "test", "index": 1}, UnknownNameError, "level"),
    ],
)
def test_params_that_name_no_game_are_refused(params: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        asyncio.run(BabyAIEnv().reset(task=game_task(**params)))


def test_nothing_is_played_before_reset_or_after_close() -> None:
    async def play() -> None:
        env = BabyAIEnv()
        with pytest.raises(EnvError, match="reset"):
            await env.oracle()
        await env.reset(seed=1)
        await env.close()
        with pytest.raises(EnvError, match="reset"):
            await env.step("turn left")

    asyncio.run(play())
