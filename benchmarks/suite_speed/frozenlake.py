"""Steps per second on slippery 8x8 lakes by the same directions, beside Gymnasium's FrozenLake with its picture."""

from __future__ import annotations

import asyncio
import os
import random
import time

import gymnasium

from palaestra import make
from palaestra.envs.frozenlake.generate import generate
from palaestra.envs.frozenlake.lake import ORDER, rows
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import load_suite

_STEPS, _INSTANCES = 2000, 300


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    rng = random.Random(0)
    actions = [rng.randrange(4) for _ in range(_STEPS)]
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


async def _play(actions: list[int]) -> float:
    task = load_suite("frozenlake/slippery-8x8:train")[0]
    async with make(task.env) as env:
        await env.reset(task=task)
        began = time.process_time()
        for number, action in enumerate(actions):
            step = await env.step(ORDER[action])
            if step.terminated or step.truncated:
                await env.reset(task=task, seed=number)
        return time.process_time() - began


def _stock(actions: list[int]) -> float:
    lake = list(rows(generate("slippery-8x8", "train", 0)))
    env = gymnasium.make("FrozenLake-v1", desc=lake, is_slippery=True, render_mode="ansi", max_episode_steps=200)
    env.reset(seed=0)
    began = time.process_time()
    for number, action in enumerate(actions):
        _, _, terminated, truncated, _ = env.step(action)
        env.render()
        if terminated or truncated:
            env.reset(seed=number)
    return time.process_time() - began


async def _memory() -> float:
    suite, before = load_suite("frozenlake/8x8:train"), resident_bytes(os.getpid())
    envs = [make("frozenlake/Text-v0") for _ in range(_INSTANCES)]
    for env, task in zip(envs, suite, strict=False):
        await env.reset(task=task)
    return max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES)
