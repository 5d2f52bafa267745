"""Moves per second in rooms of the level `medium`, by random directions; no stock package plays them in text."""

from __future__ import annotations

import asyncio
import os
import random
import time

from palaestra import make
from palaestra.envs.grids import DIRECTIONS
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import load_suite

_MOVES, _INSTANCES = 1000, 300


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    rng = random.Random(0)
    moves = [rng.choice(sorted(DIRECTIONS)) for _ in range(_MOVES)]
    asyncio.run(_play(moves))  # makes the rooms
    spent, steps, end = 0.0, 0, time.monotonic() + seconds
    while not steps or time.monotonic() < end:
        spent += asyncio.run(_play(moves))
        steps += _MOVES
    return {"steps_per_second": steps / spent, "memory_bytes": asyncio.run(_memory())}


async def _play(moves: list[str]) -> float:
    """Seconds of the steps alone, and of beginning again where an episode ends."""
    suite = load_suite("sokoban/medium:train")
    async with make("sokoban/Text-v0") as env:
        await env.reset(task=suite[0])
        began = time.process_time()
        for number, move in enumerate(moves):
            step = await env.step(move)
            if step.terminated or step.truncated:
                await env.reset(task=suite[number % 10])
        return time.process_time() - began


async def _memory() -> float:
    suite, before = load_suite("sokoban/medium:train"), resident_bytes(os.getpid())
    envs = [make("sokoban/Text-v0") for _ in range(_INSTANCES)]
    for env, task in zip(envs, suite, strict=False):
        await env.reset(task=task)
    return max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES)
