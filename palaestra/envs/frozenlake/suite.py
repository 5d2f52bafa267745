"""The `frozenlake` suite: `frozenlake/LEVEL:SPLIT`, maps made from seeds."""

from __future__ import annotations

from typing import Any

from palaestra.envs.frozenlake.generate import LEVELS
from palaestra.envs.params import whole
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

ENV = "frozenlake/Text-v0"
LEVEL = "4x4"
SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}
"""Split -> number of tasks that the suite offers."""


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The lakes of one split.

    Args:
        split: `train`, `validation` or `test`.
        level: `4x4`, `8x8`, `slippery-4x4` or `slippery-8x8`; the default is `4x4`.
        params: `max_turns`, steps of an episode instead of the level's.

    Raises:
        UnknownNameError: no such level or split.
        ConfigError: another parameter.
        DataError: `max_turns` is no positive whole number.
    """
    name = level or LEVEL
    if name not in LEVELS:
        raise UnknownNameError("level of frozenlake", name, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of frozenlake", split, SPLITS)
    if others := sorted(set(params) - {"max_turns"}):
        raise ConfigError(f"frozenlake takes max_turns, but got {', '.join(others)}")
    for option in params:
        whole(params, option, "frozenlake", least=1)
    return TaskSuite(f"frozenlake/{name}", split, SIZES[split], lambda index: _task(name, split, index, params))


def _task(level: str, split: str, index: int, options: dict[str, Any]) -> Task:
    return Task(
        env=ENV,
        name=f"{level}-{index}",
        split=split,
        seed=index,
        params={"level": level, "split": split, "index": index, **options},
        kind=level,
    )
