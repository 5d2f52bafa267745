"""The `countdown` suite: `countdown/LEVEL:SPLIT`, puzzles made from seeds."""

from __future__ import annotations

from typing import Any

from palaestra.envs.countdown.generate import LEVELS
from palaestra.envs.generated import SIZES, check_choice, check_counts, generated_suite
from palaestra.envs.tasks import TaskSuite

ENV = "countdown/Numbers-v0"
LEVEL = "steps-3"


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
    check_choice("countdown", name, LEVELS, split)
    check_counts("countdown", params, ("max_turns",))
    return generated_suite("countdown", ENV, name, split, SIZES[split], params)
