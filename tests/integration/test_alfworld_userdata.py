"""Game files in ALFWorld's layout, played on the original package."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.alfworld_files import write_games
from support.alfworld_original import interpreter, placement

from palaestra.envs.alfworld.game import KINDS
from palaestra.envs.alfworld.generate import generate
from palaestra.envs.alfworld.suite import load
from palaestra.envs.core import Env, Step
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def python() -> str:
    found = interpreter()
    if found is None:
        pytest.skip(
            "no alfworld: pip install 'palaestra[alfworld]', or name a Python that has it in PALAESTRA_ALFWORLD_PYTHON"
        )
    return found


@pytest.fixture
def data(python: str, tmp_path: Path) -> Path:
    """Four small games and one of another type, all to be seen in validation."""
    games = [generate("small", "validation", index) for index in range(4)]
    write_games(python, tmp_path, "valid_seen", [*games, generate("full", "validation", 1)])
    return tmp_path


@pytest.fixture
def original(python: str) -> Callable[[], Env[str, str]]:
    return lambda: make("alfworld/Original-v0", placement=placement(python))


async def solve(env: Env[str, str]) -> list[Step[str]]:
    steps: list[Step[str]] = []
    while not steps or not (steps[-1].terminated or steps[-1].truncated):
        steps.append(await env.step(await env.oracle()))  # type: ignore[attr-defined]
    return steps


def spoilt(folder: Path, **changes: Any) -> None:
    file = folder / "game.tw-pddl"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_planner_solves_every_game(data: Path, original: Callable[[], Env[str, str]]) -> None:
    async def go() -> None:
        suite = load("validation", "original", data=data)
        assert len(suite) == 5
        assert {task.kind for task in suite} == {*KINDS[2:], KINDS[1]}
        async with original() as env:
            for task in suite:
                first = await env.reset(task=task)
                assert "Your task is to: " in first.observation
                assert first.info["task_type"] == task.kind
                assert "look" in first.info["admissible_commands"]
                steps = await solve(env)
                assert (steps[-1].reward, steps[-1].info["success"]) == (1.0, True)
                assert not any(step.info["invalid"] for step in steps)

    asyncio.run(go())


def test_who_leaves_the_plan_gets_another(data: Path, original: Callable[[], Env[str, str]]) -> None:
    async def go() -> None:
        async with original() as env:
            first = await env.reset(task=load("valid_seen", "original", data=data)[0])
            advice = await env.oracle()  # type: ignore[attr-defined]
            assert await env.oracle() == advice  # type: ignore[attr-defined]
            other = next(
                command
                for command in first.info["admissible_commands"]
                if command.startswith("go") and command != advice
            )
            await env.step(other)
            assert not (await env.step("fly")).terminated
            assert (await solve(env))[-1].reward == 1

    asyncio.run(go())


def test_forks_go_on_as_the_episode_does(data: Path, original: Callable[[], Env[str, str]]) -> None:
    async def wander(env: Env[str, str]) -> list[Step[str]]:
        rng, steps = random.Random(1), [await env.step("look")]
        for _ in range(5):
            steps.append(await env.step(rng.choice(steps[-1].info["admissible_commands"])))
        return steps

    async def go() -> None:
        async with original() as env:
            await env.reset(task=load("valid_seen", "original", data=data)[1])
            await env.step(await env.oracle())  # type: ignore[attr-defined]
            others = [*await env.fork(1), *await fork_by_replay(env, 1)]
            assert [await wander(other) for other in others] == [await wander(env)] * 2
            for other in others:
                await other.close()

    asyncio.run(go())


def test_max_turns_cut_the_episode_off(data: Path, original: Callable[[], Env[str, str]]) -> None:
    async def go() -> None:
        task = load("valid_seen", "original", data=data)[0]
        async with original() as env:
            await env.reset(task=Task(env=task.env, name="short", params={**task.params, "max_turns": 2}))
            assert not (await env.step("look")).truncated
            assert (await env.step("look")).truncated

    asyncio.run(go())


def test_bad_games_are_told_and_the_others_go_on(data: Path, original: Callable[[], Env[str, str]]) -> None:
    """Broken PDDL, a broken grammar, a game without a plan, and a grammar that would run code."""
    folders = sorted((data / "json_2.1.1" / "valid_seen").glob("*/*"))
    evil = data / "evil"
    texts = [json.loads((folder / "game.tw-pddl").read_text()) for folder in folders]
    spoilt(folders[0], pddl_problem="(define (problem")
    spoilt(folders[1], grammar="nonsense")
    code = f"{{__import__('pathlib').Path('{evil}').touch()}}"
    spoilt(folders[2], grammar=texts[2]["grammar"].replace("-= Welcome to TextWorld, ALFRED! =-", code))
    goal = texts[3]["pddl_problem"].index("(:goal")
    spoilt(folders[3], pddl_problem=texts[3]["pddl_problem"][:goal] + "(:goal (and (holds agent1 agent1))))")

    async def go() -> None:
        suite = load("valid_seen", "original", data=data)
        async with original() as env:
            for number, told in ((0, "is damaged"), (1, "is damaged"), (2, "refused"), (3, "has no solution")):
                with pytest.raises(EnvError, match=told):
                    await env.reset(task=suite[number])
            await env.reset(task=suite[4])
            assert (await solve(env))[-1].reward == 1
        assert not evil.exists()

    asyncio.run(go())
