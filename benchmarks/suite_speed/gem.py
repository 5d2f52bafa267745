"""Moves of 2048 per second in a worker of gem's interpreter, beside the package driven in that interpreter."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

from palaestra import make
from palaestra.envs.isolation.proc import children, descendants, resident_bytes
from palaestra.envs.isolation.venvs import cached
from palaestra.envs.registry import spec

_INSTANCES = 3
_STOCK = """
import gem, time
moves = ["up", "down", "left", "right"]
done, steps, began = True, 0, time.perf_counter()
while time.perf_counter() - began < {seconds}:
    if done:
        env = gem.make("game:Game2048-v0-hard")
        env.reset(seed=steps)
    _, _, terminated, truncated, _ = env.step(f"\\\\boxed{{{{{{moves[steps % 4]}}}}}}")
    done, steps = terminated or truncated, steps + 1
print(steps / (time.perf_counter() - began))
"""


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    ours, memory = asyncio.run(_ours(seconds / 2))
    stock = _stock(seconds / 2)
    return {
        "steps_per_second": ours,
        "stock_steps_per_second": stock,
        "ratio": ours / stock,
        "memory_bytes": memory,
    }


async def _ours(seconds: float) -> tuple[float, float]:
    envs = [make("gem/Game-v0", level="game/Game2048-v0-hard") for _ in range(_INSTANCES)]
    for env in envs:
        await env.reset(seed=0)
    memory = sum(resident_bytes(pid) for pid in descendants(os.getpid(), children())) / _INSTANCES
    env, steps, began = envs[0], 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for command in ("up", "down", "left", "right"):
            step = await env.step(f"\\boxed{{{command}}}")
            steps += 1
            if step.terminated or step.truncated:
                await env.reset(seed=steps)
    rate = steps / (time.perf_counter() - began)
    await asyncio.gather(*(env.close() for env in envs))
    return rate, memory


def _stock(seconds: float) -> float:
    wanted = spec("gem/Game-v0").placement.requirements
    recipes = [(venv, venv.recipe()) for venv in cached() if venv.ready]
    python = next(str(venv.python) for venv, recipe in recipes if recipe and recipe.requirements == wanted)
    code = _STOCK.format(seconds=seconds)
    return float(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)
