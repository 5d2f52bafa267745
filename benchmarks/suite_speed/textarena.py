"""Moves of 2048 per second, beside the package's own `make` with its default wrappers and a new game each episode."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable

from palaestra import make
from palaestra.envs.isolation.proc import resident_bytes

_MOVES, _INSTANCES = 500, 200
_2048 = [f"[{random.Random(i).choice(['Up', 'Down', 'Left', 'Right'])}]" for i in range(_MOVES)]


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    _stock(), asyncio.run(_ours())  # imports
    ours, stock, steps, end = 0.0, 0.0, 0, time.monotonic() + seconds
    while not steps or time.monotonic() < end:
        ours += _timed(lambda: asyncio.run(_ours()))
        stock += _timed(_stock)
        steps += _MOVES
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
    async with make("textarena/Game-v0", game="2048-v0") as env:
        await env.reset(seed=0)
        for number, move in enumerate(_2048):
            step = await env.step(move)
            if step.terminated or step.truncated:
                await env.reset(seed=number)


def _stock() -> None:
    import textarena

    done = True
    for number, move in enumerate(_2048):
        if done:
            env = textarena.make("2048-v0")
            env.reset(num_players=1, seed=number)
        env.get_observation()
        done, _ = env.step(move)


async def _memory() -> float:
    before = resident_bytes(os.getpid())
    envs = [make("textarena/Game-v0", game="2048-v0") for _ in range(_INSTANCES)]
    for seed, env in enumerate(envs):
        await env.reset(seed=seed)
    return max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES)
