"""WebShop: random clicks in a made-up shop of 1,000 products, and searches among 100,000.

There is no stock package to compare with: what PyPI calls `webshop` has no shop in it. Seconds are CPU seconds, so that
other work on the machine does not count.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from typing import Any

from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import load_suite
from palaestra.envs.webshop.env import WebShopEnv

INSTANCES = 1000


def measure(seconds: float) -> dict[str, float | str]:
    """Steps per second; bytes an instance; milliseconds (95th percentile) of a search among 100,000 products."""
    return asyncio.run(_measure(seconds))


async def _measure(seconds: float) -> dict[str, float | str]:
    steps = await _steps("small", seconds / 2)
    before = resident_bytes(os.getpid())
    envs = [WebShopEnv() for _ in range(INSTANCES)]
    for env in envs:
        await env.reset(seed=0)
    memory = (resident_bytes(os.getpid()) - before) / INSTANCES
    searches = [1e3 * spent for searched, spent in await _steps("large", seconds / 2) if searched]
    return {
        "steps_per_second": len(steps) / sum(spent for _, spent in steps),
        "memory_bytes": memory,
        "search_median_ms": statistics.median(searches),
        "search_ms": statistics.quantiles(searches, n=20)[-1],
    }


async def _steps(level: str, seconds: float) -> list[tuple[bool, float]]:
    """Whether a step searched, and its CPU seconds, by an agent that acts at random; no task twice."""
    env, generator, steps, end = WebShopEnv(), random.Random(0), [], time.monotonic() + seconds
    for task in load_suite(f"webshop/{level}:train"):
        turn: Any = await env.reset(task=task)
        while turn.info["admissible_commands"] and not getattr(turn, "truncated", False):
            command = generator.choice(turn.info["admissible_commands"])
            start = time.process_time()
            turn = await env.step(command)
            steps.append((command.startswith("search"), time.process_time() - start))
        if time.monotonic() > end and len(steps) > 100:
            break
    return steps
