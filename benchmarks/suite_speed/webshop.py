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

from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import TaskSuite, load_suite
from palaestra.envs.webshop.env import WebShopEnv

INSTANCES = 1000


def measure(seconds: float) -> dict[str, float | str]:
    """Steps per second; bytes an instance; milliseconds of a search among 100,000 products."""
    return asyncio.run(_measure(seconds))


async def _measure(seconds: float) -> dict[str, float | str]:
    small, large = load_suite("webshop/small:test"), load_suite("webshop/large:test")
    rate = await _rate(small, seconds / 2)
    before = resident_bytes(os.getpid())
    envs = [WebShopEnv() for _ in range(INSTANCES)]
    for i, env in enumerate(envs):
        await env.reset(task=small[i % len(small)])
    memory = (resident_bytes(os.getpid()) - before) / INSTANCES
    searches = sorted(await _searches(large, seconds / 2))
    return {
        "steps_per_second": rate,
        "memory_bytes": memory,
        "search_p50_ms": 1e3 * statistics.median(searches),
        "search_p95_ms": 1e3 * searches[int(0.95 * len(searches))],
        "search_products": 100_000.0,
    }


async def _rate(suite: TaskSuite, seconds: float) -> float:
    """Steps over the time spent in `step`, by an agent that clicks at random."""
    env, generator, steps, spent = WebShopEnv(), random.Random(0), 0, 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        turn = await env.reset(task=suite[steps % len(suite)])
        while commands := turn.info["admissible_commands"]:
            command = generator.choice(commands)
            start = time.process_time()
            turn = await env.step(command)  # type: ignore[assignment]
            spent, steps = spent + time.process_time() - start, steps + 1
            if turn.truncated:  # type: ignore[attr-defined]
                break
    return steps / spent


async def _searches(suite: TaskSuite, seconds: float) -> list[float]:
    """Seconds of each step that searches and shows the first page, no query twice."""
    env, spent = WebShopEnv(), []
    await env.reset(task=suite[0])
    end = time.monotonic() + seconds
    for task in suite:
        for command in (await env.reset(task=task)).info["admissible_commands"]:
            start = time.process_time()
            await env.step(command)
            spent.append(time.process_time() - start)
        if time.monotonic() > end:
            break
    return spent
