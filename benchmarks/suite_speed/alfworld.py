"""Steps per second of the household engine with admissible commands, beside the original alfworld, in CPU seconds.

`benchmarks/env_steps.py` says how the two are compared, and where the original is looked for.
"""

from __future__ import annotations

import os
import statistics
import time

from benchmarks.env_steps import Original, env_seconds, interpreter, original_seconds, script
from palaestra.envs.alfworld.generate import generate
from palaestra.envs.alfworld.world import World
from palaestra.envs.isolation.proc import resident_bytes

_STEPS, _INSTANCES = 20, 200


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    python, end = interpreter(), time.monotonic() + seconds
    ours, theirs, number = list[float](), list[float](), 0
    original = Original(python).__enter__() if python else None
    try:
        while not number or time.monotonic() < end:
            game = generate(("small", "full")[number % 2], "train", number)
            commands = script(game, number, _STEPS)
            ours.append(env_seconds(game, commands))
            if original:
                theirs.append(original_seconds(original, game, commands))
            number += 1
    finally:
        if original:
            original.__exit__(None, None, None)
    found: dict[str, float | str] = {"steps_per_second": 1 / statistics.median(ours), "memory_bytes": _memory()}
    if theirs:
        found["stock_steps_per_second"] = 1 / statistics.median(theirs)
        found["ratio"] = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return found


def _memory() -> float:
    before = resident_bytes(os.getpid())
    worlds = [World(generate("small", "train", index)) for index in range(_INSTANCES)]
    return max(0.0, (resident_bytes(os.getpid()) - before) / len(worlds))
