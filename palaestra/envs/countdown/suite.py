"""The `countdown` suite: `countdown/LEVEL:SPLIT`, puzzles made from seeds."""

from __future__ import annotations

from typing import Any

from palaestra.envs.countdown.generate import LEVELS
from palaestra.envs.params import whole
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

ENV = "countdown/Numbers-v0"
LEVEL = "steps-3"
SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}
"""Split -> number of tasks that the suite offers."""


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The puzzles of one split.

    Args:
        split: `train`, `validation` or `test`.
        level: `steps-3`, `steps-4` and `show-steps` by one operation a turn, `tinyzero` and `show` by one answer; the
            default is `steps-3`.
        params: `max_turns`, of puzzles in steps: twice as many as there are numbers unless given.

    Raises:
        UnknownNameError: no such level or split.
        ConfigError: another parameter.
        DataError: `max_turns` is no positive whole number.
    """
    name = level or LEVEL
    if name not in LEVELS:
        raise UnknownNameError("level of countdown", name, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of countdown", split, SPLITS)
    if others := sorted(set(params) - {"max_turns"}):
        raise ConfigError(f"countdown takes max_turns, but got {', '.join(others)}")
    for option in params:
        whole(params, option, "countdown", least=1)
    return TaskSuite(f"countdown/{name}", split, SIZES[split], lambda index: _task(name, split, index, params))


def _task(level: str, split: str, index: int, options: dict[str, Any]) -> Task:
    return Task(
        env=ENV,
        name=f"{level}-{index}",
        split=split,
        seed=index,
        params={"level": level, "split": split, "index": index, **options},
        kind=level,
    )
