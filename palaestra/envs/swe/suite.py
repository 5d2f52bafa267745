"""The `swe` suite: tasks from release histories, from Harbor's task folders, and from SWE-bench's instances."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from palaestra.envs.swe.options import Options, read_options
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import UnknownNameError
from palaestra.seeds import derive_seed

ENV = "swe/Repository-v0"
LEVEL = "releases"
LEVELS = {
    "releases": "palaestra.envs.swe.releases",
    "harbor": "palaestra.envs.swe.harbor",
    "swebench": "palaestra.envs.swe.swebench",
}
"""Level -> module with `load_tasks(split, params) -> TaskSuite`."""


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The tasks of one split.

    Args:
        split: `train`, `validation` or `test`.
        level: `releases`, `harbor` or `swebench`.
        params: any of `Options`, and those of the level.

    Raises:
        ConfigError: a parameter that the level does not have, or lacks one that it needs.
        DataError: a value out of bounds, or files that hold something else.
        UnknownNameError: no such level, split, reward or back end.
    """
    level = level or LEVEL
    if level not in LEVELS:
        raise UnknownNameError("level of swe", level, LEVELS)
    read_options(params, Options())
    loading: Callable[[str, dict[str, Any]], TaskSuite] = importlib.import_module(LEVELS[level]).load_tasks
    return loading(split, params)


def drawn(seed: int) -> Task:
    """A training task of `swe/releases`, by a seed."""
    suite = load("train")
    return suite[derive_seed(seed, "swe") % len(suite)]
