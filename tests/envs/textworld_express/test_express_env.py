"""TextWorldExpress: turns, oracles, simulators that do not touch each other, a virtual machine that goes away."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("textworld_express", reason="not installed: pip install 'palaestra[textworld-express]'")
if shutil.which("java") is None:
    pytest.skip("Java is not installed: apt-get install default-jre-headless", allow_module_level=True)

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.registry import spec
from palaestra.envs.tasks import Task, load_suite
from palaestra.envs.textworld_express.env import TextWorldExpressEnv
from palaestra.envs.textworld_express.jvm import MACHINE
from palaestra.envs.textworld_express.simulator import GAMES, borrow, give_back, setting, solution
from palaestra.errors import EnvError, WorkerError

pytestmark = pytest.mark.integration
ID = "textworld-express/Game-v0"


def inline(game: str) -> Any:
    return make(ID, placement="inline", game=game)


def test_it_keeps_the_contract() -> None:
    report = check_env(ID, seeds=(0, 1))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_an_entangled_game_keeps_the_contract() -> None:
    report = check_env(msgspec.structs.replace(spec(ID), kwargs={"game": "sorting"}), seeds=(0,))
    report.raise_if_failed()


@pytest.mark.parametrize("game", GAMES)
def test_the_oracle_solves_every_game(game: str) -> None:
    async def play() -> None:
        env = TextWorldExpressEnv(game)
        for index in range(2):
            task = load_suite(f"textworld-express/{game}:test")[index]
            await env.reset(task=task)
            total = 0.0
            while True:
                step = await env.step(await env.oracle())
                total += step.reward
                if step.terminated or step.truncated:
                    break
            assert step.terminated
            assert step.info["success"]
            assert total == pytest.approx(step.info["score"]) == pytest.approx(1.0)
        await env.close()

    asyncio.run(play())


@pytest.mark.parametrize("game", ["coin", "mapreader", "cookingworld"])
def test_the_oracle_finds_back(game: str) -> None:
    async def play(seed: int) -> bool:
        env = TextWorldExpressEnv(game)
        step: Any = await env.reset(seed=seed)
        generator = random.Random(seed)
        for _ in range(6):
            commands = [c for c in step.info["admissible_commands"] if c.startswith(("move", "open door", "look"))]
            step = await env.step(generator.choice(commands))
        while not (step.terminated or step.truncated):
            step = await env.step(await env.oracle())
        await env.close()
        return bool(step.info["success"])

    assert all(asyncio.run(play(seed)) for seed in range(3))


def test_infos_and_what_makes_no_sense() -> None:
    async def play() -> None:
        env = TextWorldExpressEnv("coin")
        task = Task(env=ID, name="t", params={"game": "coin", "split": "train", "index": 7, "max_turns": 3})
        first = await env.reset(task=task)
        assert first.observation.startswith("Your task is to search the environment and find the coin.")
        assert first.info["admissible_commands"] == sorted(first.info["admissible_commands"])
        for action in ("dance", "\ud800 ; \n exit", 7):
            step = await env.step(action)  # type: ignore[arg-type]
            assert step.info["invalid"]
            assert step.reward == 0
        assert step.truncated
        assert not step.terminated
        assert (await env.render()).startswith("coin, score 0\nYou are in the kitchen")
        await env.close()

    asyncio.run(play())


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(GAMES), st.integers(0, 999), st.randoms(use_true_random=False), st.booleans())
def test_siblings_equal_the_episode_that_they_left(
    game: str, seed: int, generator: random.Random, expert: bool
) -> None:
    """Of every game, `sorting` with its shared objects included: interleaved in any way, none changes another."""

    async def play() -> None:
        async with inline(game) as env, inline(game) as alone:
            step: Any = await alone.reset(seed=seed)
            commands, expected = [], []
            while len(commands) < 10 and not (commands and (step.terminated or step.truncated)):
                choice = await alone.oracle() if expert else generator.choice(step.info["admissible_commands"])
                commands.append(choice)
                step = await alone.step(choice)
                expected.append(seen("", step))
            half = len(commands) // 2
            await env.reset(seed=seed)
            for command in commands[:half]:
                await env.step(command)
            siblings = [env, *await env.fork(3)]
            went: list[list[str]] = [[] for _ in siblings]
            order = [i for i in range(len(siblings)) for _ in commands[half:]]
            generator.shuffle(order)
            for i in order:
                went[i].append(seen("", await siblings[i].step(commands[half + len(went[i])])))
            assert went == [expected[half:]] * len(siblings)
            for sibling in siblings:
                await sibling.close()

    asyncio.run(play())


def test_threads_do_not_touch_each_other() -> None:
    wanted = [setting(game, {}, "train", seed) for game in ("coin", "twc", "simonsays", "sorting") for seed in range(3)]

    def play(one: Any) -> list[Any]:
        simulator = borrow(one)
        turns = [simulator.begin(one), *(simulator.step(command) for command in solution(one))]
        give_back(simulator)
        return [(turn.observation, sorted(turn.admissible), turn.score) for turn in turns]

    expected = [play(one) for one in wanted]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(play, wanted)) == expected


@pytest.mark.parametrize(
    ("game", "params", "message"),
    [
        ("coin", {"numRooms": 3}, "numRooms"),
        ("coin", {"numLocations": 1000}, "less than or equal to 11"),
        ("coin", {"numLocations": -1}, "greater than one"),
    ],
)
def test_the_package_refusals_are_told(game: str, params: dict[str, int], message: str) -> None:
    async def play() -> None:
        env = TextWorldExpressEnv(game, params)
        with pytest.raises(EnvError, match=message):
            await env.reset(seed=1)
        with pytest.raises(EnvError, match="reset"):
            await env.step("look around")

    asyncio.run(play())


def test_parameters_change_the_game() -> None:
    async def rooms(params: dict[str, int]) -> int:
        env = TextWorldExpressEnv("simonsays", params)
        await env.reset(seed=1)
        steps = 0
        while not (await env.step(await env.oracle())).terminated:
            steps += 1
        return steps + 1

    assert asyncio.run(rooms({"gameLength": 3})) == 3
    assert asyncio.run(rooms({"gameLength": 6})) == 6


def test_a_virtual_machine_that_was_killed_is_an_error_and_the_next_reset_has_another() -> None:
    async def play() -> None:
        env = TextWorldExpressEnv("coin")
        first = await env.reset(seed=1)
        running = MACHINE.running()
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(10)
        with pytest.raises(WorkerError, match="Java process"):
            await env.step("look around")
        assert (await env.reset(seed=1)).observation == first.observation
        await env.close()

    asyncio.run(play())
