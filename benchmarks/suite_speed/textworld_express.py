"""Steps per second of TextWorldExpress by the oracle's commands, beside the package's `TextWorldExpressEnv.step`.

All seconds are the wall's: some of them pass in Java.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from palaestra import make
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import Task
from palaestra.envs.textworld_express.jvm import MACHINE
from palaestra.envs.textworld_express.simulator import Simulator, setting, solution

_GAMES, _EPISODES, _INSTANCES = ("coin", "simonsays", "cookingworld"), 20, 16


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-Xmx1g")  # for the package, which asks for no limit
    from textworld_express import TextWorldExpressEnv

    scripts = {game: solution(setting(game, {}, "train", 0)) for game in _GAMES}
    stock, ours, theirs, steps = TextWorldExpressEnv(envStepLimit=100), 0.0, 0.0, 0
    _round(stock, scripts)
    while not steps or ours + theirs < seconds:
        mine, other = _round(stock, scripts)
        ours, theirs = ours + mine, theirs + other
        steps += _EPISODES * sum(map(len, scripts.values()))
    stock.close()
    return {
        "steps_per_second": steps / ours,
        "stock_steps_per_second": steps / theirs,
        "ratio": theirs / ours,
        "memory_bytes": _memory(),
    }


def _round(env: Any, scripts: dict[str, tuple[str, ...]]) -> tuple[float, float]:
    pairs = [(asyncio.run(_play(game, commands)), _stock(env, game, commands)) for game, commands in scripts.items()]
    return sum(ours for ours, _ in pairs), sum(theirs for _, theirs in pairs)


def _stock(env: Any, game: str, commands: tuple[str, ...]) -> float:
    env.load(gameName=game, gameParams="")
    spent = 0.0
    for _ in range(_EPISODES):
        env.reset(seed=0, gameFold="train")
        began = time.monotonic()
        for command in commands:
            env.step(command)
        spent += time.monotonic() - began
    return spent


async def _play(game: str, commands: tuple[str, ...]) -> float:
    spent, task = 0.0, Task(env="", name=game, params={"game": game, "split": "train", "index": 0})
    async with make("textworld-express/Game-v0") as env:
        for _ in range(_EPISODES):
            await env.reset(task=task)
            began = time.monotonic()
            for command in commands:
                await env.step(command)
            spent += time.monotonic() - began
    return spent


def _memory() -> float:
    pid, wanted = MACHINE.running().process.pid, setting("coin", {}, "train", 0)
    before = resident_bytes(pid)
    simulators = [Simulator(False) for _ in range(_INSTANCES)]
    for simulator in simulators:
        simulator.begin(wanted)
    return max(0.0, (resident_bytes(pid) - before) / _INSTANCES)
