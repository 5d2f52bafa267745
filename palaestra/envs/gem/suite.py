"""The `gem` suite: `gem/game/NAME:SPLIT` for its games, `gem/rg/NAME:SPLIT` for reasoning-gym's questions."""

from __future__ import annotations

from palaestra.envs.gem.games import known_level
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import UnknownNameError

ENV = "gem/Game-v0"
LEVEL = "game/Sokoban-v0-easy"
SEEDS = {"train": range(100_000), "validation": range(100_000, 101_000), "test": range(101_000, 102_000)}
"""Split -> its seeds."""


def load(split: str, level: str | None = None) -> TaskSuite:
    """The games or questions of one split; the default level is `game/Sokoban-v0-easy`.

    Raises:
        EnvError: the level cannot be played here; the message says why.
        UnknownNameError: no such level or split.
    """
    name = known_level(level or LEVEL)
    if split not in SEEDS:
        raise UnknownNameError("split of gem", split, SEEDS)
    seeds = SEEDS[split]

    def build(index: int) -> Task:
        return Task(env=ENV, name=f"{name}-{index}", split=split, seed=seeds[index], params={"level": name}, kind=name)

    return TaskSuite(f"gem/{name}", split, len(seeds), build)
