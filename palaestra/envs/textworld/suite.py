"""The `textworld` suite: `textworld/LEVEL:SPLIT`, games that are generated when they are first played."""

from __future__ import annotations

from palaestra.envs.generated import generated_suite
from palaestra.envs.tasks import TaskSuite
from palaestra.envs.textworld.recipe import LEVEL, SIZES, check_names

ENV = "textworld/Game-v0"


def load(split: str, level: str | None = None) -> TaskSuite:
    """The games of one split; the default level is `cooking-easy`.

    Raises:
        UnknownNameError: no such level or split.
    """
    name = level or LEVEL
    check_names(name, split)
    return generated_suite("textworld", ENV, name, split, SIZES[split])
