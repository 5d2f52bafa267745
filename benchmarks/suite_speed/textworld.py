"""Steps per second of TextWorld's kitchens by random commands, beside `textworld.start`, with admissible commands.

Most of ours pass in the interpreter of the games, which both share.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import warnings
from typing import Any

from palaestra import make
from palaestra.envs.isolation.proc import resident_bytes
from palaestra.envs.tasks import Task
from palaestra.envs.textworld.recipe import of_level
from palaestra.envs.textworld.shelf import game_file
from palaestra.envs.textworld.story import Story

_LEVELS, _STEPS, _INSTANCES = ("cooking-easy", "cooking-medium", "simple"), 30, 8


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    import textworld

    warnings.simplefilter("ignore")
    wanted = textworld.EnvInfos(admissible_commands=True, max_score=True, won=True, lost=True)
    files = {level: game_file(of_level(level, "train", 0)) for level in _LEVELS}
    games = {level: textworld.start(str(path), wanted) for level, path in files.items()}
    ours, stock, steps, end = 0.0, 0.0, 0, time.monotonic() + seconds
    seed = 0
    while not steps or time.monotonic() < end:
        for level, game in games.items():
            commands, spent = _stock(game, seed)
            ours, stock, steps = ours + asyncio.run(_play(level, commands)), stock + spent, steps + len(commands)
        seed += 1
    before = resident_bytes(os.getpid())
    stories = [Story(files[_LEVELS[0]]) for _ in range(_INSTANCES)]
    for story in stories:
        story.begin()
    return {
        "steps_per_second": steps / ours,
        "stock_steps_per_second": steps / stock,
        "ratio": stock / ours,
        "memory_bytes": max(0.0, (resident_bytes(os.getpid()) - before) / _INSTANCES),
    }


def _stock(env: Any, seed: int) -> tuple[list[str], float]:
    """Random commands, and the CPU seconds of doing them."""
    rng, commands, spent, state = random.Random(seed), list[str](), 0.0, env.reset()
    while len(commands) < _STEPS and not (state["won"] or state["lost"]):
        commands.append(rng.choice(state["admissible_commands"]))
        began = time.process_time()
        state, _, _ = env.step(commands[-1])
        spent += time.process_time() - began
    return commands, spent


async def _play(level: str, commands: list[str]) -> float:
    async with make("textworld/Game-v0") as env:
        params = {"level": level, "split": "train", "index": 0}
        await env.reset(task=Task(env="textworld/Game-v0", name=level, params=params))
        began = time.process_time()
        for command in commands:
            await env.step(command)
        return time.process_time() - began
