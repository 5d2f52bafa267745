"""Steps per second of TextWorld's kitchens by random commands, beside `textworld.start`, with admissible commands.

`ratio` is of the wall's seconds, ours with eight episodes at once in their threads, as an evaluation plays them;
`cpu_ratio` is of the CPU's. Most of ours pass in the interpreter of the games, which both share.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

from palaestra import make
from palaestra.envs.core import Env
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import Task
from palaestra.envs.textworld.recipe import of_level
from palaestra.envs.textworld.shelf import game_file
from palaestra.envs.textworld.story import Story

_LEVELS, _STEPS, _EPISODES = ("cooking-easy", "cooking-medium", "simple"), 30, 8
_Spent = tuple[float, float]
"""Seconds of the wall and of the CPU."""


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    import textworld

    warnings.simplefilter("ignore")
    wanted = textworld.EnvInfos(admissible_commands=True, max_score=True, won=True, lost=True)
    files = {level: game_file(of_level(level, "train", 0)) for level in _LEVELS}
    games = {level: textworld.start(str(path), wanted) for level, path in files.items()}
    ours, stock, steps, end = [0.0, 0.0], [0.0, 0.0], 0, time.monotonic() + seconds
    rng = random.Random(0)
    while not steps or time.monotonic() < end:
        for level, game in games.items():
            played = [_stock(game, rng) for _ in range(_EPISODES)]
            episodes = [commands for commands, _ in played]
            stock = [a + sum(spent[i] for _, spent in played) for i, a in enumerate(stock)]
            ours = [a + b for a, b in zip(ours, asyncio.run(_play(level, episodes)), strict=True)]
            steps += sum(map(len, episodes))
    return {
        "steps_per_second": steps / ours[0],
        "stock_steps_per_second": steps / stock[0],
        "ratio": stock[0] / ours[0],
        "cpu_ratio": stock[1] / ours[1],
        "memory_bytes": _memory(files[_LEVELS[0]]),
    }


def _memory(game: Path) -> float:
    before = resident_bytes(os.getpid())
    stories = [Story(game) for _ in range(_EPISODES)]
    for story in stories:
        story.begin()
    return max(0.0, (resident_bytes(os.getpid()) - before) / _EPISODES)


def _stock(env: Any, rng: random.Random) -> tuple[list[str], _Spent]:
    """Random commands, and the seconds of doing them."""
    commands, wall, cpu, state = list[str](), 0.0, 0.0, env.reset()
    while len(commands) < _STEPS and not (state["won"] or state["lost"]):
        commands.append(rng.choice(state["admissible_commands"]))
        began = time.perf_counter(), time.process_time()
        state, _, _ = env.step(commands[-1])
        wall, cpu = wall + time.perf_counter() - began[0], cpu + time.process_time() - began[1]
    return commands, (wall, cpu)


async def _play(level: str, episodes: list[list[str]]) -> _Spent:
    task = Task(env="textworld/Game-v0", name=level, params={"level": level, "split": "train", "index": 0})
    envs = [make(task.env) for _ in episodes]
    await asyncio.gather(*(env.reset(task=task) for env in envs))
    began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(_do(env, commands) for env, commands in zip(envs, episodes, strict=True)))
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    await asyncio.gather(*(env.close() for env in envs))
    return spent


async def _do(env: Env[Any, Any], commands: list[str]) -> None:
    for command in commands:
        await env.step(command)
