"""The `sokoban` suite: `sokoban/LEVEL:SPLIT`, rooms made from seeds."""

from __future__ import annotations

from typing import Any

from palaestra.envs.params import whole
from palaestra.envs.sokoban.generate import LEVELS
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

ENV = "sokoban/Text-v0"
LEVEL = "small"
SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}
"""Split -> number of tasks that the suite offers."""
OPTIONS = ("max_turns", "moves_per_action")


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The rooms of one split.

    Args:
        split: `train`, `validation` or `test`.
        level: `tiny`, `small`, `medium` or `large`; the default is `small`.
        params: `max_turns`, moves of an episode instead of the level's, and `moves_per_action`, 1 unless given.

    Raises:
        UnknownNameError: no such level or split.
        ConfigError: another parameter.
        DataError: a parameter that is no positive whole number.
    """
    name = level or LEVEL
    if name not in LEVELS:
        raise UnknownNameError("level of sokoban", name, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of sokoban", split, SPLITS)
    if others := sorted(set(params) - set(OPTIONS)):
        raise ConfigError(f"sokoban takes {' and '.join(OPTIONS)}, but got {', '.join(others)}")
    for option in params:
        whole(params, option, "sokoban", least=1)
    return TaskSuite(f"sokoban/{name}", split, SIZES[split], lambda index: _task(name, split, index, params))


def _task(level: str, split: str, index: int, options: dict[str, Any]) -> Task:
    return Task(
        env=ENV,
        name=f"{level}-{index}",
        split=split,
        seed=index,
        params={"level": level, "split": split, "index": index, **options},
        kind=level,
    )
