"""Puzzles made and answers graded per second, beside reasoning-gym's countdown where that is installed."""

from __future__ import annotations

import asyncio
import os
import time
from importlib.util import find_spec

from palaestra import make
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import load_suite

_PUZZLES, _INSTANCES, _ANSWER = 300, 300, "<answer>(25 - 4) * 3 + 7 / 2</answer>"


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    asyncio.run(_play(50_000))  # imports
    ours, stock, steps, end = 0.0, 0.0, 0, time.monotonic() + seconds
    compared = find_spec("reasoning_gym") is not None
    while not steps or time.monotonic() < end:
        ours += asyncio.run(_play(steps))
        stock += _stock(steps) if compared else 0.0
        steps += _PUZZLES
    found: dict[str, float | str] = {"steps_per_second": steps / ours, "memory_bytes": asyncio.run(_memory())}
    return {**found, "stock_steps_per_second": steps / stock, "ratio": stock / ours} if compared else found


async def _play(first: int) -> float:
    async with make("countdown/Numbers-v0") as env:
        began = time.process_time()
        for task in load_suite("countdown/tinyzero:train")[first : first + _PUZZLES]:
            await env.reset(task=task)
            await env.step(_ANSWER)
        return time.process_time() - began


def _stock(seed: int) -> float:
    import reasoning_gym

    data = reasoning_gym.create_dataset("countdown", size=_PUZZLES, seed=seed, min_numbers=3, max_numbers=4)
    began = time.process_time()
    for index in range(_PUZZLES):
        data.score_answer(answer=_ANSWER, entry=data[index])
    return time.process_time() - began


async def _memory() -> float:
    suite, before = load_suite("countdown:train"), resident_bytes(os.getpid())
    envs = [make("countdown/Numbers-v0") for _ in range(_INSTANCES)]
    for env, task in zip(envs, suite, strict=False):
        await env.reset(task=task)
    return max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES)
