"""The `textworld` suite: `textworld/LEVEL:SPLIT`, games that are generated when they are first played."""

from __future__ import annotations

from palaestra.envs.tasks import Task, TaskSuite
from palaestra.envs.textworld.recipe import LEVEL, SIZES, check_names

ENV = "textworld/Game-v0"


def load(split: str, level: str | None = None) -> TaskSuite:
    """The games of one split; the default level is `cooking-easy`.

    Raises:
        UnknownNameError: no such level or split.
    """
    name = level or LEVEL
    check_names(name, split)
    return TaskSuite(f"textworld/{name}", split, SIZES[split], lambda index: _task(name, split, index))


def _task(level: str, split: str, index: int) -> Task:
    return Task(
        env=ENV,
        name=f"{level}-{index}",
        split=split,
        seed=index,
        params={"level": level, "split": split, "index": index},
        kind=level,
    )
