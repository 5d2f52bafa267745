"""The `textarena` suite: `textarena/GAME:SPLIT` for each game that can be played."""

from __future__ import annotations

from typing import Any

from palaestra.envs.tasks import Task, TaskSuite
from palaestra.envs.textarena.games import known_game
from palaestra.errors import UnknownNameError

ENV = "textarena/Game-v0"
LEVEL = "TicTacToe-v0"
SEEDS = {"train": range(100_000), "validation": range(100_000, 101_000), "test": range(101_000, 102_000)}
"""Split -> its seeds."""


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The matches of one split.

    Args:
        split: `train`, `validation` or `test`; their seeds are disjoint.
        level: the package's id of a game; the default is `TicTacToe-v0`.
        params: of each task: `seat`, `max_turns`.

    Raises:
        EnvError: the game cannot be played here; the message says why.
        UnknownNameError: no such game or split.
    """
    game = level or LEVEL
    known_game(game)
    if split not in SEEDS:
        raise UnknownNameError("split of textarena", split, SEEDS)
    seeds = SEEDS[split]

    def build(index: int) -> Task:
        name = f"{game}-{index}"
        return Task(env=ENV, name=name, split=split, seed=seeds[index], params={"game": game, **params}, kind=game)

    return TaskSuite(f"textarena/{game}", split, len(seeds), build)
