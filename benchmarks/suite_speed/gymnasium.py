"""Steps of FrozenLake, Taxi and CartPole per second in words, beside the environments themselves with numbers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import gymnasium

from palaestra import make
from palaestra.envs.gymnasium_text.words import WORDS
from palaestra.envs.isolation.proc import resident_bytes

_IDS = ("FrozenLake-v1", "Taxi-v4", "CartPole-v1")
_STEPS, _INSTANCES = 500, 200


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    _stock(), asyncio.run(_ours())  # imports
    ours, stock, steps, end = 0.0, 0.0, 0, time.monotonic() + seconds
    while not steps or time.monotonic() < end:
        ours += _timed(lambda: asyncio.run(_ours()))
        stock += _timed(_stock)
        steps += _STEPS * len(_IDS)
    return {
        "steps_per_second": steps / ours,
        "stock_steps_per_second": steps / stock,
        "ratio": stock / ours,
        "memory_bytes": asyncio.run(_memory()),
    }


def _timed(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


async def _ours() -> None:
    for id in _IDS:
        names = WORDS[id].actions
        async with make("gymnasium/Text-v0", env=id) as env:
            await env.reset(seed=0)
            for number in range(_STEPS):
                step = await env.step(names[number % len(names)])
                if step.terminated or step.truncated:
                    await env.reset(seed=number)


def _stock() -> None:
    for id in _IDS:
        env = gymnasium.make(id)
        env.reset(seed=0)
        for number in range(_STEPS):
            _, _, terminated, truncated, _ = env.step(number % len(WORDS[id].actions))
            if terminated or truncated:
                env.reset(seed=number)


async def _memory() -> float:
    before = resident_bytes(os.getpid())
    envs = [make("gymnasium/Text-v0") for _ in range(_INSTANCES)]
    for seed, env in enumerate(envs):
        await env.reset(seed=seed)
    return max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES)
