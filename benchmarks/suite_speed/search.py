"""Steps per second of the oracle on `search:test`, and how long a search takes; no stock package plays these tasks."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import cycle

from palaestra import make
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.search.shelf import corpus, questions
from palaestra.envs.tasks import Task, load_suite

_INSTANCES = 200


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    suite = load_suite("search:test")[:100]
    asyncio.run(_play(suite[0]))  # imports, and the corpus
    steps, end, began = 0, time.monotonic() + seconds, time.perf_counter()
    for task in cycle(suite):
        steps += asyncio.run(_play(task))
        if time.monotonic() >= end:
            break
    return {
        "steps_per_second": steps / (time.perf_counter() - began),
        "memory_bytes": asyncio.run(_memory(suite[0])),
        "search_ms": _search(500, 200),
    }


async def _play(task: Task) -> int:
    """One episode; how many steps it took."""
    async with make(task.env) as env:
        await env.reset(task=task)
        steps, over = 0, False
        while not over:
            over, steps = (await env.step(await env.oracle())).terminated, steps + 1
    return steps


async def _memory(task: Task) -> float:
    """Bytes of one more instance in the middle of an episode."""
    before = resident_bytes(os.getpid())
    envs = [make(task.env) for _ in range(_INSTANCES)]
    for env in envs:
        await env.reset(task=task)
        await env.step(await env.oracle())
    return max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES)


def _search(pages: int, count: int) -> float:
    """Median milliseconds of a search for a whole question."""
    searched, times = corpus("test", 0, pages), []
    for question in questions("test", 0, pages, "hard")[:count]:
        began = time.perf_counter()
        searched.search(question.text, 5)
        times.append(time.perf_counter() - began)
    return 1000 * sorted(times)[len(times) // 2]
