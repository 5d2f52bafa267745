"""What the benchmarks share: contenders in turns, medians, CPU seconds beside wall, one JSON object at the end."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """One run of one contender."""

    wall: float
    """Seconds on the clock."""
    cpu: float
    """Seconds of CPU of this process, all threads; other work on the machine favours nobody here."""
    work: float
    """What the contender says it got done (tokens, steps); 1 if it says nothing."""


def timed(contender: Callable[[], float | None]) -> Timing:
    """Run it once."""
    wall, cpu = time.perf_counter(), time.process_time()
    work = contender()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, 1.0 if work is None else work)


def in_turns(
    contenders: Mapping[str, Callable[[], float | None]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[Timing]]:
    """Time all contenders in turns, so that a slow minute hits them alike; `warm_up` rounds do not count."""
    timings: dict[str, list[Timing]] = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, contender in contenders.items():
            timing = timed(contender)
            if turn >= warm_up:
                timings[name].append(timing)
    return timings


def rate(timings: list[Timing], clock: str = "wall") -> float:
    """Median of work per second; `clock` is `wall` or `cpu`."""
    return statistics.median(timing.work / getattr(timing, clock) for timing in timings)


def speed_up(ours: list[Timing], baseline: list[Timing], clock: str = "wall") -> float:
    """Median over the rounds of our rate over the baseline's of the same round."""
    pairs = zip(ours, baseline, strict=True)
    return statistics.median((a.work / getattr(a, clock)) / (b.work / getattr(b, clock)) for a, b in pairs)


def conclude(name: str, ratio: float, bar: float, *, at_most: bool = False, also: bool = True, **figures: Any) -> bool:
    """Print the last line of a benchmark; returns whether it passed.

    Args:
        name: of the benchmark.
        ratio: what is held against the bar.
        bar: to be reached.
        at_most: not to be exceeded instead.
        also: whether everything else that it has to hold does.
        figures: printed beside.
    """
    passed = also and (ratio <= bar if at_most else ratio >= bar)
    print(json.dumps({"name": name, "ratio": _short(ratio), "bar": bar, "pass": passed, **_short(figures)}))
    return passed


def status_bytes(field: str) -> int:
    """A line of /proc/self/status, such as VmRSS or VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _short(value: Any) -> Any:
    """Four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return {key: _short(item) for key, item in value.items()} if isinstance(value, dict) else value
