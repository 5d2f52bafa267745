"""Problems answered per second through the environment, beside `math-verify` called as it comes, on the same answers.

The stock way judges one answer after the other in the calling process, with no protection against hostile ones: its
alarm works in a main thread only, and is left out, as it has to be in any server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from palaestra import make
from palaestra.envs.isolation.proc import children, descendants, resident_bytes
from palaestra.envs.tasks import Task

# Answers as agents write them: most are numbers, some take computer algebra.
PAIRS = [(str(n), str(n + n % 2)) for n in range(7, 15)] + [("1{,}080", "1080"), ("0.5", r"\frac12"), ("x+1", "1+x")]
_ROUND = 4 * len(PAIRS)


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    logging.disable(logging.CRITICAL)
    asyncio.run(_play(2))  # imports, and a judge
    ours, stock = 0.0, 0.0
    steps = 0
    end = time.monotonic() + seconds
    while not steps or time.monotonic() < end:
        ours += _timed(lambda: asyncio.run(_play(4)))
        stock += _timed(_stock)
        steps += _ROUND
    judges = [resident_bytes(pid) for pid in descendants(os.getpid(), children())]
    return {
        "steps_per_second": steps / ours,
        "stock_steps_per_second": steps / stock,
        "ratio": stock / ours,
        "memory_bytes": 0.0,
        "judges_bytes": float(sum(judges)),
    }


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _rounds(count: int) -> Iterator[tuple[str, str]]:
    for _ in range(count):
        yield from PAIRS


async def _play(rounds: int) -> None:
    async with make("math/Answer-v0") as env:
        for answer, gold in _rounds(rounds):
            await env.reset(task=Task(env="math/Answer-v0", name=gold, params={"problem": "?", "answer": gold}))
            await env.step(rf"so \boxed{{{answer}}}")


def _stock() -> None:
    from math_verify import parse, verify

    for answer, gold in _rounds(4):
        found = (parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer))
        verify(*found, timeout_seconds=None)
