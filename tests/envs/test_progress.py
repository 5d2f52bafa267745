from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.core import Env, Reset, Step, Verdict
from palaestra.envs.progress import ProgressReward
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import ConfigError

ASKED = Task(env="test/Sums-v0", name="sums", params={"progress": True})


class Sums(Env[str, str]):
    """Pays what the action says."""

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        return Reset("", {})

    async def step(self, action: str) -> Step[str]:
        return Step("", float(action), False, False, {})


class Graded(Sums):
    async def verify(self) -> Verdict:
        return Verdict(5.0, True, {})


async def pay(env: Env[Any, Any], rewards: list[float], task: Task | None = ASKED) -> list[float]:
    await env.reset(task=task)
    return [(await env.step(str(reward))).reward for reward in rewards]


@given(st.lists(st.integers(-100, 100), max_size=30))
def test_rewards_add_up_to_the_best_score(rewards: list[int]) -> None:
    paid = asyncio.run(pay(ProgressReward(Sums()), [float(r) for r in rewards]))
    scores = [sum(rewards[: i + 1]) for i in range(len(rewards))]
    assert all(reward >= 0 for reward in paid)
    assert sum(paid) == max([0, *scores])


def test_who_does_not_ask_is_paid_as_ever() -> None:
    rewards = [1.0, -3.0, 2.5]
    plain = Task(env="test/Sums-v0", name="sums")
    for task in (None, plain, Task(env=plain.env, name="sums", params={"progress": "yes"})):
        assert asyncio.run(pay(ProgressReward(Sums()), rewards, task)) == rewards


def test_every_episode_begins_at_zero() -> None:
    env = ProgressReward(Sums())
    assert asyncio.run(pay(env, [3.0, -1.0])) == [3.0, 0.0]
    assert asyncio.run(pay(env, [2.0])) == [2.0]


def test_the_verdict_counts_too() -> None:
    async def play() -> float:
        env = ProgressReward(Graded())
        await pay(env, [2.0, -3.0])
        return (await env.verify()).reward

    assert asyncio.run(play()) == 2.0
    assert not hasattr(ProgressReward(Sums()), "verify")


def test_a_snapshot_holds_the_best_score() -> None:
    async def play() -> list[float]:
        task = load_suite("alfworld:train", progress=True)[0]
        env = make("alfworld/Household-v0")
        await env.reset(seed=task.seed, task=task)
        plan = []
        while True:
            state = await env.snapshot()
            step = await env.step(await env.oracle())
            await env.restore(state)
            again = await env.step(await env.oracle())
            assert again == step
            plan.append(step.reward)
            if step.terminated:
                return plan

    rewards = asyncio.run(play())
    assert rewards[-1] == 1.0
    assert not any(rewards[:-1])


def test_every_suite_can_be_paid_by_progress() -> None:
    part = load_suite("alfworld:train[5:8]", progress=True)
    assert [task.params["progress"] for task in part] == [True] * 3
    assert [task.name for task in part] == [task.name for task in load_suite("alfworld:train[5:8]")]
    assert "progress" not in load_suite("alfworld:train", progress=False)[0].params
    with pytest.raises(ConfigError, match=r"progress of a suite is true or false, not 'yes'"):
        load_suite("alfworld:train", progress="yes")
