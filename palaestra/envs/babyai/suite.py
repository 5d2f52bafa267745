"""The `babyai` suite: `babyai/LEVEL:SPLIT` for each of BabyAI's levels."""

from __future__ import annotations

from palaestra.envs.babyai.levels import SPLITS, check_level
from palaestra.envs.generated import SIZES, generated_suite
from palaestra.envs.tasks import TaskSuite
from palaestra.errors import UnknownNameError

ENV = "babyai/Text-v0"
LEVEL = "GoToLocal"


def load(split: str, level: str | None = None) -> TaskSuite:
    """The games of one level and split; the default level is `GoToLocal`.

    Raises:
        UnknownNameError: no such level or split.
        MissingExtraError: minigrid is not installed.
    """
    name = check_level(level or LEVEL)
    if split not in SPLITS:
        raise UnknownNameError("split of babyai", split, SPLITS)
    return generated_suite("babyai", ENV, name, split, SIZES[split])
