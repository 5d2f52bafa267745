"""Steps per second where latency has a heavy tail, over Gymnasium's AsyncVectorEnv: nobody waits for the slowest.

A plain synchronous `gymnasium.Env` sleeps in every step, lognormal(-4, 1.2) seconds (median 18 ms, mean 38 ms, one in a
hundred over 0.3 s). AsyncVectorEnv has one process for each and steps all in lock step. Ours has the same class in
threads (`placement="thread"`, for sleeping releases the interpreter lock) and a coroutine for each, which steps again
as soon as its answer is there. Both draw the same latencies, begin with all environments idle, and run for the same
seconds, in turns; of ours, only the steps that came back within them count, of AsyncVectorEnv the last round of steps,
too, with the time that it took. `ideal` is what a machine of endlessly many cores would do with nobody waiting.

    python benchmarks/pool_heavy_tail.py [--seconds 8 --rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import Timing, conclude, rate, speed_up

from palaestra.envs.registry import make, register

BARS = {16: 4.0, 256: 10.0}
"""Environments -> times AsyncVectorEnv's steps a second."""
MU, SIGMA = -4.0, 1.2
MEAN = math.exp(MU + SIGMA**2 / 2)
"""Seconds of a step."""


class Tail(gymnasium.Env[Any, Any]):
    """Nothing but latency."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.latency = random.Random(seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self.latency.lognormvariate(MU, SIGMA))
        return np.zeros(1, np.float32), 0.0, False, False, {}


register("benchmark/Tail-v0", Tail, placement="thread")


def lock_step(envs: AsyncVectorEnv, seconds: float) -> Timing:
    """What AsyncVectorEnv does."""
    actions, done = np.zeros(envs.num_envs, np.int64), 0
    cpu, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() < begin + seconds:
        envs.step(actions)
        done += envs.num_envs
    return Timing(time.perf_counter() - begin, time.process_time() - cpu, done)


async def free(envs: list[Any], seconds: float) -> Timing:
    """What ours do; the wait for the steps that are under way at the end is nobody's time."""
    done, cpu, end = 0, time.process_time(), time.perf_counter() + seconds

    async def one(env: Any) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await env.step("0")
            done += time.perf_counter() < end

    await asyncio.gather(*(one(env) for env in envs))
    return Timing(seconds, time.process_time() - cpu, done)


def measure(count: int, seconds: float, rounds: int) -> dict[str, float]:
    loop = asyncio.new_event_loop()
    baseline = AsyncVectorEnv([Tail] * count)
    ours = [make("benchmark/Tail-v0") for _ in range(count)]
    free_timings, lock_step_timings = [], []

    async def on_all(call: Callable[[int, Any], Any]) -> None:
        await asyncio.gather(*(call(i, env) for i, env in enumerate(ours)))

    try:
        baseline.reset(seed=0)
        loop.run_until_complete(on_all(lambda i, env: env.reset(seed=i)))
        for _ in range(rounds):
            free_timings.append(loop.run_until_complete(free(ours, seconds)))
            lock_step_timings.append(lock_step(baseline, seconds))
    finally:
        loop.run_until_complete(on_all(lambda i, env: env.close()))
        baseline.close()
        loop.close()
    return {
        "ratio": speed_up(free_timings, lock_step_timings),
        "steps_per_second": rate(free_timings),
        "async_vector_env_steps_per_second": rate(lock_step_timings),
        "ideal_steps_per_second": count / MEAN,
        "cpu_seconds_per_step": 1 / rate(free_timings, "cpu"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results = {}
    for count, bar in BARS.items():
        results[count] = measure(count, args.seconds, args.rounds)
        print(f"{count} environments: {results[count]['ratio']:.2f} times (bar {bar:g})", flush=True)
    worst = min(BARS, key=lambda count: results[count]["ratio"] / BARS[count])
    conclude(
        "pool_heavy_tail",
        results[worst]["ratio"],
        BARS[worst],
        **{f"environments_{count}": result for count, result in results.items()},
    )


if __name__ == "__main__":
    main()
