"""Steps per second of the household engine, with admissible commands, over those of the original alfworld.

Both play the same games by the same commands, in turns; the original runs in a process of its own, and only its `step`
counts. All seconds are CPU seconds, so that other work on the machine favours neither. The original is found by
`PALAESTRA_ALFWORLD_PYTHON`, a Python that has `alfworld`, else in this one; without it our speed is reported alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from palaestra.envs.alfworld.env import HouseholdEnv
from palaestra.envs.alfworld.game import Game
from palaestra.envs.alfworld.generate import generate
from palaestra.envs.alfworld.world import World
from palaestra.envs.tasks import Task

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.alfworld_original import Original, interpreter

BAR = 1000.0
"""Times the original's steps per second."""
REPEATS = 200
"""How often we play what the original plays once, so that the clock has something to measure."""


def script(game: Game, seed: int, steps: int) -> list[str]:
    """Random admissible commands."""
    world, rng = World(game), random.Random(seed)
    commands = []
    for _ in range(steps):
        commands.append(rng.choice(world.admissible()))
        world.act(commands[-1])
    return commands


def engine_seconds(game: Game, commands: list[str]) -> float:
    """Seconds a step of the bare engine, all that the original's `step` does: text, admissible commands, won."""
    world, elapsed = World(game), 0.0
    for _ in range(REPEATS):
        world.restart()
        start = time.process_time()
        for command in commands:
            world.act(command)
            world.admissible()
            world.won()
        elapsed += time.process_time() - start
    return elapsed / (REPEATS * len(commands))


def env_seconds(game: Game, commands: list[str]) -> float:
    """Seconds a step of the asynchronous environment, the one that is compared."""
    params = {"game": msgspec.to_builtins(game), "max_turns": len(commands) + 1}
    task = Task(env="alfworld/Household-v0", name="benchmark", params=params)

    async def run() -> float:
        env, elapsed = HouseholdEnv(), 0.0
        for _ in range(REPEATS // 10):
            await env.reset(task=task)
            start = time.process_time()
            for command in commands:
                await env.step(command)
            elapsed += time.process_time() - start
        return elapsed / (REPEATS // 10 * len(commands))

    return asyncio.run(run())


def original_seconds(original: Original, game: Game, commands: list[str]) -> float:
    """Seconds a step of the original."""
    original.load(game)
    return statistics.mean(original.step(command).seconds for command in commands)


def measure(games: int, steps: int, original: Original | None) -> dict[str, list[float]]:
    """Seconds a step of each, game by game in turns; the levels alternate."""
    seconds: dict[str, list[float]] = {"engine": [], "env": [], "original": []}
    for i in range(games):
        game = generate(("small", "full")[i % 2], "train", i)
        commands = script(game, i, steps)
        seconds["engine"].append(engine_seconds(game, commands))
        seconds["env"].append(env_seconds(game, commands))
        if original:
            seconds["original"].append(original_seconds(original, game, commands))
            print(f"game {i}: {seconds['original'][-1] / seconds['engine'][-1]:,.0f} times", flush=True)
    return seconds


def result(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the games; the ratio is the median of the games' ratios."""
    ours = {f"{name}_steps_per_second": round(1 / statistics.median(seconds[name])) for name in ("engine", "env")}
    if not seconds["original"]:
        return {"name": "env_steps", "ratio": None, "bar": BAR, "pass": None, **ours, "original": "not installed"}
    pairs = zip(seconds["original"], seconds["env"], strict=True)
    ratio = statistics.median(theirs / own for theirs, own in pairs)
    theirs = round(1 / statistics.median(seconds["original"]), 1)
    return {
        "name": "env_steps",
        "ratio": round(ratio),
        "bar": BAR,
        "pass": ratio >= BAR,
        **ours,
        "original_steps_per_second": theirs,
        "games": len(seconds["engine"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    python = interpreter()
    if python is None:
        print(json.dumps(result(measure(args.games, args.steps, None))))
        return
    with Original(python) as original:
        print(json.dumps(result(measure(args.games, args.steps, original))))


if __name__ == "__main__":
    main()
