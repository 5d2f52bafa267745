"""The original `alfworld` as one of our environments: checked, isolated, forked, replayed."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from support.alfworld_original import interpreter, placement

from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import OracleAgent, RandomAgent
from palaestra.envs.alfworld.suite import ENV
from palaestra.envs.checker import check_env
from palaestra.envs.core import Env, Step
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.registry import make, spec
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import EnvError
from palaestra.trajectories.replay import replay

pytestmark = pytest.mark.integration

ORIGINAL = "alfworld/Original-v0"


@pytest.fixture(scope="module")
def where() -> Placement:
    python = interpreter()
    if python is None:
        pytest.skip(
            "no alfworld: pip install 'palaestra[alfworld]', or name a Python that has it in PALAESTRA_ALFWORLD_PYTHON"
        )
    return placement(python)


def task(index: int, split: str = "test") -> Task:
    return msgspec.structs.replace(load_suite(f"alfworld/small:{split}")[index], env=ORIGINAL)


@asynccontextmanager
async def begun(where: Placement, index: int = 0) -> AsyncIterator[Env[str, str]]:
    async with make(ORIGINAL, placement=where) as env:
        await env.reset(task=task(index))
        yield env


async def solve(env: Any) -> list[Step[str]]:
    steps = [await env.step(await env.oracle())]
    while not (steps[-1].terminated or steps[-1].truncated):
        steps.append(await env.step(await env.oracle()))
    return steps


async def wander(env: Env[str, str], rng: random.Random, turns: int) -> list[Step[str]]:
    steps = [await env.step("look")]
    for _ in range(turns - 1):
        steps.append(await env.step(rng.choice(steps[-1].info["admissible_commands"])))
    return steps


def test_it_keeps_the_contract(where: Placement) -> None:
    report = check_env(msgspec.structs.replace(spec(ORIGINAL), placement=where), seeds=range(2), max_steps=15)
    assert report.ok, str(report)
    assert report.determinism == "exact"


def test_it_plays_the_tasks_of_the_suite(where: Placement) -> None:
    async def go() -> None:
        for index in range(4):
            async with begun(where, index) as env, make(ENV) as ours:
                await ours.reset(task=task(index))
                theirs = await solve(env)
                assert len(theirs) == len(await solve(ours))
                assert [theirs[-1].terminated, theirs[-1].reward] == [True, 1.0]
                assert theirs[-1].info["success"]
                assert theirs[-1].info["task_type"] == task(index).kind

    asyncio.run(go())


def test_a_fork_equals_the_continuation_and_a_replay(where: Placement) -> None:
    async def go() -> None:
        async with begun(where) as env:
            await wander(env, random.Random(0), 4)
            copies = await env.fork(2)
            replays = await fork_by_replay(env, 1)
            there = [await wander(other, random.Random(1), 6) for other in [*copies, *replays]]
            assert there == [await wander(env, random.Random(1), 6)] * 3
            for other in [*copies, *replays]:
                await other.close()

    asyncio.run(go())


def test_its_process_is_copied(where: Placement) -> None:
    async def go() -> None:
        async with begun(where) as env:
            copies = await env._channel.fork(1)  # type: ignore[attr-defined]  # the environment would fall back to replay
            for copy in copies:
                copy.kill()

    asyncio.run(go())


def test_recorded_episodes_are_replayed_identically(where: Placement) -> None:
    async def go() -> None:
        def make_env(id: str) -> Env[str, str]:
            return make(id, placement=where)

        for agent in (OracleAgent(), RandomAgent()):
            episodes = [Episode(task=task(i), id=f"{agent.name}/{i}", seed=i) for i in range(2)]
            records = await rollout(episodes, agent, make_env, RolloutLimits(max_turns=10))
            assert [record.status for record in records] == ["ok"] * 2
            for record in records:
                found = await replay(record, make_env=make_env)
                assert (found.result, found.steps) == ("identical", len(record.steps)), found.reason

    asyncio.run(go())


def test_many_at_once_are_as_if_alone(where: Placement) -> None:
    async def alone(index: int) -> list[Step[str]]:
        async with begun(where, index) as env:
            return await wander(env, random.Random(index), 8)

    async def together() -> list[list[Step[str]]]:
        return list(await asyncio.gather(*(alone(index) for index in range(3))))

    assert asyncio.run(together()) == [asyncio.run(alone(index)) for index in range(3)]


def test_the_fast_grammar_says_what_the_stock_one_says(where: Placement) -> None:
    async def go(fast: bool) -> list[Step[str]]:
        async with make(ORIGINAL, placement=where, fast_grammar=fast) as env:
            await env.reset(task=task(1))
            return await wander(env, random.Random(3), 8)

    assert asyncio.run(go(True)) == asyncio.run(go(False))


def test_nonsense_is_invalid(where: Placement) -> None:
    async def go() -> None:
        async with begun(where) as env:
            for command in ("fly to the moon", "", 7):
                step = await env.step(command)  # type: ignore[arg-type]
                assert step.observation == "Nothing happens."
                assert step.info["invalid"]
            assert not (await env.step("look")).info["invalid"]

    asyncio.run(go())


def test_it_refuses_threads(where: Placement) -> None:
    async def go() -> None:
        async with make(ORIGINAL, placement="thread") as env:
            await env.reset(seed=0)

    with pytest.raises(EnvError, match=r"place it in a process|is not installed"):
        asyncio.run(go())


def test_a_game_that_cannot_be_is_told(where: Placement) -> None:
    async def go() -> None:
        async with make(ORIGINAL, placement=where) as env:
            with pytest.raises(EnvError, match="household game"):
                await env.reset(task=Task(env=ORIGINAL, name="x", params={"game": {"receptacles": 3}}))
            await env.reset(task=task(0))

    asyncio.run(go())


def test_its_registration_needs_no_alfworld() -> None:
    code = f"import sys; from palaestra import make; make({ORIGINAL!r}); assert 'alfworld' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert spec(ORIGINAL).placement.kind in ("process", "interpreter")
    assert spec(ORIGINAL).placement.requirements == ("alfworld==0.4.2",)
