"""2,000 sleeping episodes in one process: how late a step comes back, and what an episode costs.

Each step of the environment sleeps for a known time (uniform, 0.5 to 1.5 s), as one that waits for a model, a
container or a network does. The rollout driver plays all episodes at once. The added latency of a step is the time that
the driver measured minus the sleep; the baseline is the same sleeps as bare `asyncio.sleep`, in the same process,
before. Resident bytes and descriptors are those of the process with all episodes open minus those without any.

    python benchmarks/pool_idle.py [--episodes 2000 --steps 8]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import conclude

from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import ScriptedAgent
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.registry import make, register
from palaestra.envs.tasks import Task

BAR = 0.05
"""Most seconds that a step may come late, at the 99th percentile."""


class Usage:
    """Resident bytes and descriptors of this process, and the most of either that was seen."""

    def __init__(self) -> None:
        gc.collect()
        self.process = psutil.Process()
        self.start = self.process.memory_info().rss, len(os.listdir("/proc/self/fd"))
        self.most = self.start

    def look(self) -> None:
        now = self.process.memory_info().rss, len(os.listdir("/proc/self/fd"))
        self.most = max(self.most[0], now[0]), max(self.most[1], now[1])

    def per(self, count: int) -> dict[str, float]:
        names = "bytes_per_environment", "descriptors_per_environment"
        return {name: (most - start) / count for name, most, start in zip(names, self.most, self.start, strict=True)}


def sleep_of(rng: random.Random) -> float:
    return rng.uniform(0.5, 1.5)


@register("benchmark/Sleeper-v0")
class Sleeper(Env[str, str]):
    """Every step sleeps, and says how long."""

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        self.rng = random.Random(seed)
        return Reset("asleep", {})

    async def step(self, action: str) -> Step[str]:
        seconds = sleep_of(self.rng)
        await asyncio.sleep(seconds)
        return Step(str(seconds), 0.0, False, False, {})


async def bare(count: int, steps: int) -> list[float]:
    """Seconds that bare sleeps come late."""
    late: list[float] = []

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(steps):
            seconds, began = sleep_of(rng), time.perf_counter()
            await asyncio.sleep(seconds)
            late.append(time.perf_counter() - began - seconds)

    await asyncio.gather(*(one(i) for i in range(count)))
    return late


async def played(count: int, steps: int, usage: Usage) -> list[float]:
    """Seconds that the steps of whole episodes come late."""
    episodes = [Episode(task=Task(env="benchmark/Sleeper-v0", name=str(i), seed=i), id=str(i)) for i in range(count)]
    limits = RolloutLimits(max_turns=steps, concurrency=count)
    watch = asyncio.create_task(_watch(usage))
    records = await rollout(episodes, ScriptedAgent(["wait"] * steps), make, limits)
    watch.cancel()
    late = []
    for record in records:
        slept = [*(step.observation for step in record.steps[1:]), record.final_observation]
        late += [step.env_seconds - float(seconds) for step, seconds in zip(record.steps, slept, strict=True)]
    return late


async def _watch(usage: Usage) -> None:
    while True:
        await asyncio.sleep(1.0)
        usage.look()


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(part * (len(values) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    baseline = asyncio.run(bare(args.episodes, args.steps))
    usage = Usage()
    ours = asyncio.run(played(args.episodes, args.steps, usage))
    late = percentile(ours, 0.99)
    conclude(
        "pool_idle",
        late,
        BAR,
        at_most=True,
        unit="seconds late, 99th percentile",
        median_seconds=percentile(ours, 0.5),
        worst_seconds=max(ours),
        bare_sleep_p99_seconds=percentile(baseline, 0.99),
        times_bare_sleep=late / percentile(baseline, 0.99),
        **usage.per(args.episodes),
        episodes=args.episodes,
        steps=len(ours),
    )


if __name__ == "__main__":
    main()
