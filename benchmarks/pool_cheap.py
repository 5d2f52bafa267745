"""Steps per second of a cheap environment in two worker processes, over Gymnasium's AsyncVectorEnv.

Both step the same number of the same environments (`CartPole-v1` as `gymnasium.make` makes it), with the same actions
and seeds, with autoreset, and return copies. AsyncVectorEnv has a process for each environment by design, and talks to
each at every step; ours has two, and talks to those. The bar is on 64 environments, a number that training on cheap
environments uses. Reported beside it: 2 environments, where AsyncVectorEnv has just as many processes as ours, and
SyncVectorEnv, which steps all in one process without talking to anybody. CPU is that of all processes of a contender.

    python benchmarks/pool_cheap.py [--seconds 3 --rounds 5]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import psutil
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import Timing, conclude, rate, speed_up

from palaestra.envs.vector import PoolVectorEnv

BAR, COUNT, WORKERS = 5.0, 64, 2
COUNTS = (2, 16, COUNT)


def cart_pole() -> Any:
    return gymnasium.make("CartPole-v1")


class Contender:
    """A vector, and what its processes have used."""

    def __init__(self, make: Callable[[], VectorEnv]) -> None:
        before = set(_descendants())
        self.envs = make()
        self.envs.reset(seed=0)
        self.processes = [process for process in _descendants() if process not in before]
        self.actions = np.random.default_rng(0).integers(0, 2, (256, self.envs.num_envs))

    def run(self, seconds: float) -> Timing:
        cpu, begin, steps = self.cpu(), time.perf_counter(), 0
        while time.perf_counter() < begin + seconds:
            self.envs.step(self.actions[steps % len(self.actions)])
            steps += 1
        wall = time.perf_counter() - begin
        return Timing(wall, self.cpu() - cpu, steps * self.envs.num_envs)

    def cpu(self) -> float:
        """Seconds so far: of this process, and of all that this vector started."""
        times = [process.cpu_times() for process in self.processes]
        return time.process_time() + sum(each.user + each.system for each in times)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def measure(count: int, seconds: float, rounds: int) -> dict[str, Any]:
    contenders = {
        "ours": Contender(lambda: PoolVectorEnv("CartPole-v1", count, workers=WORKERS)),
        "async_vector_env": Contender(lambda: AsyncVectorEnv([cart_pole] * count)),
        "sync_vector_env": Contender(lambda: SyncVectorEnv([cart_pole] * count)),
    }
    timings: dict[str, list[Timing]] = {name: [] for name in contenders}
    try:
        for turn in range(1 + rounds):
            for name, contender in contenders.items():
                timing = contender.run(seconds if turn else min(seconds, 1.0))
                if turn:
                    timings[name].append(timing)
    finally:
        for contender in contenders.values():
            contender.envs.close()
    ours, theirs = timings["ours"], timings["async_vector_env"]
    return {
        "ratio": speed_up(ours, theirs),
        "ratio_by_cpu": speed_up(ours, theirs, "cpu"),
        "ratio_to_sync_vector_env": speed_up(ours, timings["sync_vector_env"]),
        **{f"{name}_steps_per_second": rate(each) for name, each in timings.items()},
        "cores_used": median(each.cpu / each.wall for each in ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results = {}
    for count in COUNTS:
        results[count] = result = measure(count, args.seconds, args.rounds)
        print(f"{count} environments: {result['ratio']:.2f} times AsyncVectorEnv", flush=True)
    more = {f"environments_{count}": result for count, result in results.items() if count != COUNT}
    conclude("pool_cheap", results[COUNT].pop("ratio"), BAR, environments=COUNT, **results[COUNT], **more)


if __name__ == "__main__":
    main()
