"""Gymnasium's environments in words: what is told, what is read, what is refused."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'palaestra[gymnasium]'")

import gymnasium

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.gymnasium_text.env import GymnasiumTextEnv
from palaestra.envs.gymnasium_text.words import WORDS
from palaestra.envs.registry import spec
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import DataError, EnvError, MissingExtraError, UnknownNameError

NUMERIC = ["Pendulum-v1", "MountainCarContinuous-v0"]


@pytest.mark.parametrize("id", [*WORDS, *NUMERIC])
def test_each_keeps_the_contract(id: str) -> None:
    report = check_env(
        msgspec.structs.replace(spec("gymnasium/Text-v0"), kwargs={"env": id}), seeds=(0, 1), max_steps=20
    )
    report.raise_if_failed()
    assert report.determinism == "exact"


async def begin(id: str, seed: int = 0, **kwargs: Any) -> tuple[GymnasiumTextEnv, str]:
    env = GymnasiumTextEnv(id, kwargs)
    return env, (await env.reset(seed=seed)).observation


def test_what_is_told() -> None:
    async def go() -> list[str]:
        lake, first = await begin("FrozenLake-v1", is_slippery=False)
        told = [first, (await lake.step("Right")).observation]
        return [
            *told,
            *[(await begin(id, 1))[1] for id in ("Taxi-v4", "Blackjack-v1", "CliffWalking-v1", "CartPole-v1")],
        ]

    lake, right, taxi, hand, cliff, cart = asyncio.run(go())
    assert "\n@FFF\nFHFH\nFFFH\nHFFG\nYou (@) are in row 1, column 1.\nActions: left, down, right, up." in lake
    assert right.startswith("S@FF\n")
    assert "The taxi (@) is in row 3, column 3. The passenger is at " in taxi
    assert taxi.count("@") == 2
    assert "You hold 20. The dealer shows 7." in hand
    assert "\n@CCCCCCCCCCG\nYou (@) are in row 4, column 1." in cliff
    assert "cart position 0.0012, cart velocity 0.0450" in cart


def test_the_way_to_the_goal_is_a_success() -> None:
    async def go() -> None:
        env, _ = await begin("FrozenLake-v1", is_slippery=False)
        for action in ("down", "1", "right", "down", "2", "RIGHT"):
            step = await env.step(action)
        assert (step.reward, step.terminated, step.info["success"], step.info["score"]) == (1.0, True, True, 1.0)

    asyncio.run(go())


def test_a_taxi_lists_what_its_mask_allows_and_brings_the_passenger_home() -> None:
    async def go() -> None:
        async with make("gymnasium/Text-v0", env="Taxi-v4") as env:
            first = await env.reset(seed=1)
            listed = set(first.info["admissible_commands"])
            assert listed < set(WORDS["Taxi-v4"].actions)
            assert "drop off" not in listed
            wrong = await env.step("drop off")
            assert (wrong.reward, wrong.info["invalid"]) == (-10.0, False)

    asyncio.run(go())


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(WORDS)), st.integers(0, 100), st.data())
def test_siblings_equal_the_episode_that_they_left(id: str, seed: int, data: Any) -> None:
    async def go() -> None:
        async with make("gymnasium/Text-v0", env=id) as env, make("gymnasium/Text-v0", env=id) as alone:
            step: Any = await alone.reset(seed=seed)
            await env.reset(seed=seed)
            generator = random.Random(seed)
            commands, expected = [], []
            while len(commands) < 6 and not (commands and (step.terminated or step.truncated)):
                commands.append(generator.choice(step.info["admissible_commands"]))
                step = await alone.step(commands[-1])
                expected.append(seen("", step))
            half = len(commands) // 2
            for command in commands[:half]:
                await env.step(command)
            siblings = [env, *await env.fork(2)]
            went: list[list[str]] = [[] for _ in siblings]
            for i in data.draw(st.permutations([i for i in range(3) for _ in commands[half:]])):
                went[i].append(seen("", await siblings[i].step(commands[half + len(went[i])])))
            assert went == [expected[half:]] * 3
            for sibling in siblings:
                await sibling.close()

    asyncio.run(go())


HOSTILE: list[Any] = [
    "",
    "9" * 100_000,
    "x" * 1_000_000,
    "[" * 300,
    "１",
    "４",
    "ｌeft",
    "\ud800",
    "\x00",
    "1e999",
    "nan",
    None,
    1,
    ["0"],
]


@pytest.mark.parametrize("id", ["FrozenLake-v1", "CartPole-v1", "Pendulum-v1"])
def test_a_hostile_action_changes_nothing_and_takes_a_turn(id: str) -> None:
    async def go() -> None:
        env = GymnasiumTextEnv(id, max_turns=len(HOSTILE))
        first = await env.reset(seed=3)
        state = first.observation.splitlines()[-2]
        for action in HOSTILE:
            step = await env.step(action)
            assert step.info["invalid"], action
            assert step.reward == 0
            assert step.observation.endswith(state)
            assert "Actions: " in step.observation or "Write " in step.observation
            assert len(step.observation.encode()) < 2_000
        assert step.truncated

    asyncio.run(go())


def test_numbers_are_read_for_a_box() -> None:
    async def go() -> None:
        env, first = await begin("Pendulum-v1")
        assert "Write 1 number that " in first
        assert not (await env.step("[0.5]")).info["invalid"]
        assert (await env.step("2.5")).info["invalid"]

    asyncio.run(go())


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'Taxi-v4'"):
        load_suite("gymnasium/Taxy-v4:train")
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("gymnasium:dev")
    for id in ("no_such_module:Env-v0", "Nothing-v0"):
        with pytest.raises(UnknownNameError, match="environment of gymnasium"):
            asyncio.run(GymnasiumTextEnv(id).reset(seed=0))
    for params in ({"env": 3}, {"kwargs": []}, {"max_turns": 0}):
        with pytest.raises(DataError):
            asyncio.run(GymnasiumTextEnv().reset(task=Task(env="gymnasium/Text-v0", name="t", params=params)))


def test_what_gymnasium_cannot_make_is_told() -> None:
    with pytest.raises(EnvError, match=r"gymnasium cannot make FrozenLake-v1: TypeError: .*no_such"):
        asyncio.run(GymnasiumTextEnv("FrozenLake-v1", {"no_such": 1}).reset(seed=0))


class Old(gymnasium.Env):  # type: ignore[misc,name-defined]
    """The contract of years ago: an observation of `reset`, four values of `step`."""

    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, resets: bool = False) -> None:
        self.resets = resets

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return (0, {}) if self.resets else [0, 1, 2]

    def step(self, action: Any) -> Any:
        return 1, 0.0, False, {}


class Picture(Old):
    observation_space = gymnasium.spaces.Box(0, 255, (96, 96, 3))


@pytest.fixture
def _mine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("Old", Old), ("Picture", Picture)):
        entry = gymnasium.envs.registration.EnvSpec(f"{name}-v0", entry_point=kind, order_enforce=False)
        monkeypatch.setitem(gymnasium.registry, f"{name}-v0", entry)


@pytest.mark.usefixtures("_mine")
def test_an_environment_that_breaks_the_contract_is_told() -> None:
    async def go(resets: bool) -> None:
        env = GymnasiumTextEnv("Old-v0", {"resets": resets})
        await env.reset(seed=0)
        await env.step("1")

    for resets in (False, True):
        with pytest.raises(EnvError, match="Old-v0 breaks Gymnasium's contract: ValueError"):
            asyncio.run(go(resets))
    with pytest.raises(EnvError, match="pictures of shape"):
        asyncio.run(GymnasiumTextEnv("Picture-v0").reset(seed=0))


def test_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "gymnasium.py").write_text("__version__ = '0.1'\n")
    (tmp_path / "gymnasium-0.1.dist-info").mkdir()
    (tmp_path / "gymnasium-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: gymnasium\nVersion: 0.1\n"
    )
    code = (
        f"import sys, asyncio; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from palaestra.envs.gymnasium_text.env import GymnasiumTextEnv\n"
        "asyncio.run(GymnasiumTextEnv().reset(seed=0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("palaestra.errors.EnvError: gymnasium 0.1 is not as expected ("), done.stderr
    assert last.endswith("supported is 1.4.0: pip install 'gymnasium==1.4.0'")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[gymnasium\]"):
        asyncio.run(GymnasiumTextEnv().reset(seed=0))
