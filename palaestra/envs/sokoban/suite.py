"""The `sokoban` suite: `sokoban/LEVEL:SPLIT`, rooms made from seeds."""

from __future__ import annotations

from typing import Any

from palaestra.envs.generated import SIZES, check_choice, check_counts, generated_suite
from palaestra.envs.sokoban.generate import LEVELS
from palaestra.envs.tasks import TaskSuite

ENV = "sokoban/Text-v0"
LEVEL = "small"
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
    check_choice("sokoban", name, LEVELS, split)
    check_counts("sokoban", params, OPTIONS)
    return generated_suite("sokoban", ENV, name, split, SIZES[split], params)
