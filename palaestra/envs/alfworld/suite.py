"""The `alfworld` suite: generated games by level and split; ALFRED's own trials and ALFWorld's own game files where
their data is at hand."""

from __future__ import annotations

from typing import Any

from palaestra.envs.alfworld.generate import LEVELS
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

ENV = "alfworld/Household-v0"
SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}
"""Split -> number of tasks that the suite offers."""


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The games of one split.

    Args:
        split: `train`, `validation` or `test`; of the level `alfred` its own splits, `train` and `valid_seen`; of
            `original` also `valid_seen` and `valid_unseen`, which are its `validation` and `test`.
        level: a name of `LEVELS`, `alfred` or `original`; the default is `small`.
        params: for `alfred`, `data`: the folder with the trials, and `layouts`: the folder with ALFWorld's scenes; for
            `original`, `data`: the folder with the games.

    Raises:
        ConfigError: a parameter that the level does not have.
        DataError: there is no such data.
        UnknownNameError: no such level or split.
    """
    level = level or "small"
    if level == "alfred":
        from palaestra.envs.alfworld.alfred import load_alfred

        return load_alfred(split, **params)
    if level == "original":
        from palaestra.envs.alfworld.userdata import load_original

        if others := sorted(set(params) - {"data"}):
            raise ConfigError(f"alfworld/original takes data, but got {', '.join(others)}")
        return load_original(split, **params)
    if params:
        raise ConfigError(f"alfworld/{level} takes no parameters, but got {', '.join(sorted(params))}")
    if level not in LEVELS:
        raise UnknownNameError("level of alfworld", level, [*LEVELS, "alfred", "original"])
    if split not in SIZES:
        raise UnknownNameError("split of alfworld", split, SIZES)
    return TaskSuite(f"alfworld/{level}", split, SIZES[split], lambda index: _task(level, split, index))


def _task(level: str, split: str, index: int) -> Task:
    kinds = LEVELS[level].kinds
    return Task(
        env=ENV,
        name=f"{level}-{index}",
        split=split,
        seed=index,
        params={"level": level, "split": split, "index": index},
        kind=kinds[index % len(kinds)],
    )
