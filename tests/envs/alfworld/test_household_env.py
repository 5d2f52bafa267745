import asyncio
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.alfworld_play import game

from palaestra.envs.alfworld.env import HouseholdEnv
from palaestra.envs.core import SupportsOracle, SupportsRender, SupportsSnapshot
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import DataError, EnvError, PalaestraError


def household(params: dict[str, Any]) -> Task:
    return Task(env="alfworld/Household-v0", name="x", params=params)


def test_it_keeps_the_contract() -> None:
    from palaestra.envs.checker import check_env

    report = check_env("alfworld/Household-v0")
    assert report.ok, str(report)
    assert report.determinism == "exact"


def test_it_has_every_capability_that_suits_it() -> None:
    assert isinstance(HouseholdEnv(), SupportsSnapshot)
    assert isinstance(HouseholdEnv(), SupportsOracle)
    assert isinstance(HouseholdEnv(), SupportsRender)


@pytest.mark.parametrize("suite", ["alfworld/small:test", "alfworld/full:validation"])
def test_reward_comes_with_success_alone(suite: str) -> None:
    async def run() -> None:
        async with make("alfworld/Household-v0") as env:
            for task in load_suite(suite)[:12]:
                observation, info = await env.reset(seed=task.seed, task=task)
                assert "Your task is to: " in observation
                assert info["task_type"] == task.kind
                step = None
                while not info["success"]:
                    step = await env.step(await env.oracle())
                    info = step.info
                    assert step.reward == float(step.terminated) == float(info["success"])
                    assert not step.truncated
                    assert not info["invalid"]
                assert step is not None

    asyncio.run(run())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20), st.integers(0, 1000), st.integers(0, 10))
def test_a_snapshot_continues_in_another_instance(index: int, seed: int, before: int) -> None:
    async def go(env: HouseholdEnv, n: int, rng: random.Random) -> list[Any]:
        choices = ("look", "go to cabinet 1", "jump")
        return [await env.step(rng.choice([*choices, await env.oracle()])) for _ in range(n)]

    async def run() -> None:
        one, other = HouseholdEnv(), HouseholdEnv()
        await one.reset(seed=index)
        await go(one, before, random.Random(seed))
        saved = await one.snapshot()
        after = await go(one, 8, random.Random(seed))
        await other.reset(seed=index + 1)
        await other.restore(saved)
        assert await go(other, 8, random.Random(seed)) == after
        await one.restore(saved)
        assert await go(one, 8, random.Random(seed)) == after

    asyncio.run(run())


def test_refused_commands_are_marked_and_counted() -> None:
    async def run() -> None:
        env = HouseholdEnv()
        await env.reset(task=household({"level": "small", "split": "train", "index": 0, "max_turns": 3}))
        texts = ["fly", None, " look "]
        steps = [await env.step(text) for text in texts]
        assert [step.info["invalid"] for step in steps] == [True, True, False]
        assert [step.observation for step in steps[:2]] == ["Nothing happens."] * 2
        assert [step.truncated for step in steps] == [False, False, True]
        assert not any(step.terminated for step in steps)

    asyncio.run(run())


def test_info_is_new_each_time() -> None:
    async def run() -> None:
        env = HouseholdEnv()
        _, first = await env.reset(seed=1)
        kept = list(first["admissible_commands"])
        infos = [first, *[(await env.step("look")).info for _ in range(2)]]
        assert len({id(info) for info in infos}) == len({id(info["admissible_commands"]) for info in infos}) == 3
        infos[1]["admissible_commands"].clear()
        assert (await env.step("look")).info["admissible_commands"] == kept
        assert first["admissible_commands"] == kept

    asyncio.run(run())


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"level": "small", "split": "train"},
        {"level": "small", "split": "train", "index": "x"},
        {"level": "small", "split": "train", "index": float("inf")},
        {"level": ["small"], "split": "train", "index": 0},
        {"level": "small", "split": "train", "index": 0, "max_turns": "many"},
        {"level": "small", "split": "train", "index": 0, "max_turns": 0},
        {"game": None},
        {"game": {}},
        {"game": {"receptacles": [], "objects": [], "goal": {"kind": "fly", "object": "Mug", "place": "Desk"}}},
        {"game": {**msgspec.to_builtins(game("small", 0)), "objects": [["Mug", 1, 99]]}},
        {"game": {**msgspec.to_builtins(game("small", 0)), "extra": 1}},
    ],
)
def test_corrupt_params_are_told(params: dict[str, Any]) -> None:
    with pytest.raises(PalaestraError):
        asyncio.run(HouseholdEnv().reset(task=household(params)))
    if params.get("level") != ["small"]:
        with pytest.raises(DataError):
            asyncio.run(HouseholdEnv().reset(task=household(params)))


def test_out_of_order_use_is_told() -> None:
    env = HouseholdEnv()
    for call in (env.step("look"), env.snapshot(), env.oracle()):
        with pytest.raises(EnvError, match="reset"):
            asyncio.run(call)


def test_render_shows_where_everything_is() -> None:
    async def run() -> str:
        env = HouseholdEnv()
        await env.reset(task=household({"game": msgspec.to_builtins(game("small", 1))}))
        await env.step(await env.oracle())
        return await env.render()

    shown, drawn = asyncio.run(run()), game("small", 1)
    assert drawn.goal.text in shown
    assert shown.count("→") == 1
    assert all(f"{kind.lower()} {number}" in shown for kind, number, _ in drawn.objects)
