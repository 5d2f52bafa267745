"""Steps per second of ScienceWorld by the package's own solutions, beside its `ScienceWorldEnv.step`, in turns.

The package lists the valid actions after every command. `ratio` is ours without the list, for agents that write freely;
`ratio_admissible` is ours with it. All seconds are the wall's: most of them pass in Java.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from palaestra import make
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.scienceworld.pool import Pool
from palaestra.envs.scienceworld.solution import solution
from palaestra.envs.scienceworld.tasks import EASY, setting
from palaestra.envs.tasks import Task

_TASKS, _INSTANCES = ("find-animal", "boil", "power-component"), 4


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-Xmx1g")  # for the package, which asks for no limit
    from scienceworld import ScienceWorldEnv

    solutions = {task: solution(setting(task, 0, EASY)) for task in _TASKS}
    scripts = {task: found[: len(found) // 2] for task, found in solutions.items()}  # the last commands end it
    stock, spent, steps = ScienceWorldEnv("", envStepLimit=1000), [0.0, 0.0, 0.0], 0
    for round in range(1000):
        for task, commands in scripts.items():
            taken = [_stock(stock, task, commands), *(asyncio.run(_play(task, commands, one)) for one in (False, True))]
            if round:  # Java's compiler is warm by then
                spent, steps = [a + b for a, b in zip(spent, taken, strict=True)], steps + len(commands)
        if round and sum(spent) > seconds:
            break
    stock.close()
    return {
        "steps_per_second": steps / spent[1],
        "stock_steps_per_second": steps / spent[0],
        "ratio": spent[0] / spent[1],
        "admissible_steps_per_second": steps / spent[2],
        "ratio_admissible": spent[0] / spent[2],
        "memory_bytes": _memory(),
    }


def _stock(env: Any, task: str, commands: tuple[str, ...]) -> float:
    env.load(task, 0, EASY)
    env.reset()
    began = time.monotonic()
    for command in commands:
        env.step(command)
    return time.monotonic() - began


async def _play(task: str, commands: tuple[str, ...], admissible: bool) -> float:
    params = {"task": task, "variation": 0, "admissible": admissible, "max_turns": 1000}
    async with make("scienceworld/Task-v0") as env:
        await env.reset(task=Task(env="scienceworld/Task-v0", name=task, params=params))
        began = time.monotonic()
        for command in commands:
            await env.step(command)
        return time.monotonic() - began


def _memory() -> float:
    pool, wanted = Pool(), setting("boil", 0, EASY)
    sizes = []
    for _ in range(1 + _INSTANCES):
        pool.borrow().begin(wanted)
        sizes.append(resident_bytes(pool.pids()[0]))
    pool.stop()
    return (sizes[-1] - sizes[0]) / _INSTANCES
