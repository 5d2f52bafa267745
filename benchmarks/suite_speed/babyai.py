"""Steps per second of BabyAI's GoToLocal in words by the same actions, beside minigrid, which gives arrays."""

from __future__ import annotations

import asyncio
import os
import random
import time

from palaestra import make
from palaestra.envs.babyai.levels import begin, levels
from palaestra.envs.babyai.words import NAMES
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import Task

_STEPS, _INSTANCES = 500, 100


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    rng = random.Random(0)
    actions = [rng.choice((0, 1, 2, 2)) for _ in range(_STEPS)]
    ours, stock, steps, end = 0.0, 0.0, 0, time.monotonic() + seconds
    while not steps or time.monotonic() < end:
        ours += asyncio.run(_play(actions))
        stock += _stock(actions)
        steps += _STEPS
    return {
        "steps_per_second": steps / ours,
        "stock_steps_per_second": steps / stock,
        "ratio": stock / ours,
        "memory_bytes": asyncio.run(_memory()),
    }


def _task(seed: int) -> Task:
    return Task(env="babyai/Text-v0", name=str(seed), params={"level": "GoToLocal", "seed": seed})


async def _play(actions: list[int]) -> float:
    async with make("babyai/Text-v0") as env:
        await env.reset(task=_task(0))
        began = time.process_time()
        for number, action in enumerate(actions):
            step = await env.step(NAMES[action])
            if step.terminated or step.truncated:
                await env.reset(task=_task(number))
        return time.process_time() - began


def _stock(actions: list[int]) -> float:
    import gymnasium

    env = gymnasium.make(levels()["GoToLocal"])
    env.reset(seed=0)
    began = time.process_time()
    for number, action in enumerate(actions):
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset(seed=number)
    return time.process_time() - began


async def _memory() -> float:
    begin("GoToLocal", 0)  # imports
    before = resident_bytes(os.getpid())
    envs = [make("babyai/Text-v0") for _ in range(_INSTANCES)]
    for seed, env in enumerate(envs):
        await env.reset(task=_task(seed))
    return max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES)
