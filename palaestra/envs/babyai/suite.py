"""The `babyai` suite: `babyai/LEVEL:SPLIT` for each of BabyAI's levels."""

from __future__ import annotations

from palaestra.envs.babyai.levels import SPLITS, check_level
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import UnknownNameError

ENV = "babyai/Text-v0"
LEVEL = "GoToLocal"
SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}
"""Split -> number of tasks that the suite offers."""


def load(split: str, level: str | None = None) -> TaskSuite:
    """The games of one level and split; the default level is `GoToLocal`.

    Raises:
        UnknownNameError: no such level or split.
        MissingExtraError: minigrid is not installed.
    """
    name = check_level(level or LEVEL)
    if split not in SPLITS:
        raise UnknownNameError("split of babyai", split, SPLITS)
    return TaskSuite(f"babyai/{name}", split, SIZES[split], lambda index: _task(name, split, index))


def _task(level: str, split: str, index: int) -> Task:
    return Task(
        env=ENV,
        name=f"{level}-{index}",
        split=split,
        seed=index,
        params={"level": level, "split": split, "index": index},
        kind=level,
    )
