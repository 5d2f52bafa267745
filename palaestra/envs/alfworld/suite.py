"""The `alfworld` suite: generated games by level and split, and ALFRED's own trials where their data is at hand."""

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
        split: `train`, `validation` or `test`; of the level `alfred` its own splits, `train` and `valid_seen`.
        level: a name of `LEVELS`, or `alfred`; the default is `small`.
        params: for `alfred`, `data`: the folder with the trials, and `layouts`: the folder with ALFWorld's scenes.

    Raises:
        ConfigError: a parameter that the level does not have.
        UnknownNameError: no such level or split.
    """
    level = level or "small"
    if level == "alfred":
        from palaestra.envs.alfworld.alfred import load_alfred

        return load_alfred(split, **params)
    if params:
        raise ConfigError(f"alfworld/{level} takes no parameters, but got {', '.join(sorted(params))}")
    if level not in LEVELS:
        raise UnknownNameError("level of alfworld", level, [*LEVELS, "alfred"])
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
