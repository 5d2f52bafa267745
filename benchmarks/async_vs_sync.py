"""Wall time of the synchronous trainer over the asynchronous one, where environments are slow with a heavy tail.

Every step of the environment sleeps lognormal(-3, 1.2) seconds: 50 ms in the median, 102 ms in the mean, one in a
hundred over 0.8 s; an episode has 8. A random tiny model plays, so that next to nothing but these latencies takes time.
Both trainers learn from the same number of groups with the same recipe, in turns, from the same seed of latencies; the
asynchronous one may be 2 updates behind. `quorum` is the same with groups of which three quarters are enough; its
stragglers come later. Synchronous rounds wait for the slowest of 16 episodes; the bound on staleness lets at most three
rounds be played at once, so 3 is the most that there is to win.

    python benchmarks/async_vs_sync.py [--rounds 3 --iterations 10]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _chores import WEATHER, chores_recipe, prepare
from _harness import conclude, in_turns, speed_up

from palaestra.training.metrics import read_metrics
from palaestra.training.run import train

BAR = 2.0
LATENCY = (-3.0, 1.2)
MODES = {
    "sync": ["trainer.mode=sync"],
    "async": ["trainer.mode=async", "trainer.staleness=2"],
    "quorum": ["trainer.mode=async", "trainer.staleness=2", "trainer.quorum=0.75"],
}


def contender(folder: Path, name: str, iterations: int, rows: dict[str, list[dict[str, Any]]]) -> Callable[[], float]:
    """Trains, and returns how many groups were learned from; each run has latencies of its own."""
    runs = iter(range(1_000_000))

    def go() -> float:
        number = next(runs)
        WEATHER.draw.seed(number)
        recipe = chores_recipe(folder, f"{name}-{number}", f"budget.iterations={iterations}", *MODES[name])
        with contextlib.redirect_stderr(io.StringIO()):
            result = train(recipe)
        rows[name] = list(read_metrics(result.directory / "metrics.jsonl"))
        return float(iterations * recipe.rollout.groups)

    return go


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=10)
    arguments = parser.parse_args()
    WEATHER.latency, WEATHER.turns = LATENCY, 8
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        timings = in_turns(
            {name: contender(Path(folder), name, arguments.iterations, rows) for name in MODES},
            arguments.rounds,
            warm_up=0,
        )
    passed = conclude(
        "async_vs_sync",
        speed_up(timings["async"], timings["sync"]),
        BAR,
        quorum_ratio=speed_up(timings["quorum"], timings["sync"]),
        seconds={name: statistics.median(t.wall for t in each) for name, each in timings.items()},
        cpu_seconds={name: statistics.median(t.cpu for t in each) for name, each in timings.items()},
        staleness_mean={name: each[-1].get("staleness_mean", 0.0) for name, each in rows.items()},
        staleness_max={name: float(max(row.get("staleness_max", 0) for row in each)) for name, each in rows.items()},
        groups=arguments.iterations * 4,
        rounds=arguments.rounds,
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
