"""The `frozenlake` suite: `frozenlake/LEVEL:SPLIT`, maps made from seeds."""

from __future__ import annotations

from typing import Any

from palaestra.envs.frozenlake.generate import LEVELS
from palaestra.envs.generated import SIZES, check_choice, check_counts, generated_suite
from palaestra.envs.tasks import TaskSuite

ENV = "frozenlake/Text-v0"
LEVEL = "4x4"


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
    check_choice("frozenlake", name, LEVELS, split)
    check_counts("frozenlake", params, ("max_turns",))
    return generated_suite("frozenlake", ENV, name, split, SIZES[split], params)
