"""Answers judged per second through the environment, and by `math-verify` as it comes, here and unprotected."""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from palaestra import make
from palaestra.envs.math.env import AnswerEnv
from palaestra.envs.tasks import Task

# As agents answer: mostly numbers; the last takes computer algebra.
PAIRS = [(str(n), str(n + n % 2)) for n in range(7, 15)] + [("1{,}080", "1080"), ("0.5", r"\frac12"), ("x+1", "1+x")]


def measure(seconds: float) -> dict[str, float | str]:
    logging.disable(logging.CRITICAL)  # math-verify warns of its missing alarm, which works in main threads only
    asyncio.run(_ours())  # imports, and a judge
    ours = stock = 0.0
    steps, end = 0, time.monotonic() + seconds
    while not steps or time.monotonic() < end:
        ours += _timed(lambda: asyncio.run(_ours()))
        stock += _timed(_stock)
        steps += len(PAIRS)
    return {
        "steps_per_second": steps / ours,
        "stock_steps_per_second": steps / stock,
        "ratio": stock / ours,
        "memory_bytes": _memory(1000),
    }


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def _ours() -> None:
    async with make("math/Answer-v0") as env:
        for answer, gold in PAIRS:
            await env.reset(task=Task(env="math/Answer-v0", name=gold, params={"problem": "?", "answer": gold}))
            await env.step(rf"so \boxed{{{answer}}}")


def _stock() -> None:
    from math_verify import parse, verify

    for pair in PAIRS:
        answer, gold = (parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in pair)
        verify(gold, answer, timeout_seconds=None)


def _memory(instances: int) -> float:
    tracemalloc.start()
    kept = [AnswerEnv() for _ in range(instances)]
    asyncio.run(_reset(kept))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / len(kept)


async def _reset(envs: list[AnswerEnv]) -> None:
    for env in envs:
        await env.reset(seed=1)
