"""The `textworld-express` suite: `textworld-express/GAME:SPLIT` for each of its eight games."""

from __future__ import annotations

from typing import Any

from palaestra.envs.tasks import Task, TaskSuite
from palaestra.envs.textworld_express.env import FOLDS, PER_SPLIT
from palaestra.envs.textworld_express.simulator import setting
from palaestra.errors import UnknownNameError

ENV = "textworld-express/Game-v0"
LEVEL = "coin"


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The games of one split, as the package divides its seeds.

    Args:
        split: `train`, `validation` (the package's `dev`) or `test`. Objects differ between them.
        level: one of the eight games; the default is `coin`.
        params: the game's own, for example `numLocations=4, includeDoors=0`.

    Raises:
        UnknownNameError: no such game or split.
        DataError: a parameter is not a whole number.
    """
    game = level or LEVEL
    if split not in FOLDS:
        raise UnknownNameError("split of textworld-express", split, FOLDS)
    setting(game, params, split, 0)
    return TaskSuite(f"textworld-express/{game}", split, PER_SPLIT, lambda index: _task(game, split, index, params))


def _task(game: str, split: str, index: int, params: dict[str, Any]) -> Task:
    return Task(
        env=ENV,
        name="-".join([game, *(f"{name}={value}" for name, value in sorted(params.items())), str(index)]),
        split=split,
        seed=index,
        params={"game": game, "split": split, "index": index, "params": params},
        kind=game,
    )
