"""Suites whose tasks are no more than a level, a split and an index, from which their environment makes the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from palaestra.envs.params import whole
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}
"""Split -> number of tasks that such a suite offers, where nothing else limits them."""


def check_choice(suite: str, level: str, levels: Collection[str], split: str) -> None:
    """A level and a split that there are.

    Raises:
        UnknownNameError: no such level or split.
    """
    if level not in levels:
        raise UnknownNameError(f"level of {suite}", level, levels)
    if split not in SPLITS:
        raise UnknownNameError(f"split of {suite}", split, SPLITS)


def check_counts(suite: str, params: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Parameters of a suite that are all positive whole numbers.

    Raises:
        ConfigError: one that it does not take.
        DataError: one that is no positive whole number.
    """
    if others := sorted(set(params) - set(allowed)):
        raise ConfigError(f"{suite} takes {' and '.join(allowed)}, but got {', '.join(others)}")
    for name in params:
        whole(params, name, suite, least=1)


def generated_suite(
    suite: str, env: str, level: str, split: str, size: int, params: Mapping[str, Any] | None = None
) -> TaskSuite:
    """The tasks of one level and split; `params` go into each."""

    def build(index: int) -> Task:
        return Task(
            env=env,
            name=f"{level}-{index}",
            split=split,
            seed=index,
            params={"level": level, "split": split, "index": index, **(params or {})},
            kind=level,
        )

    return TaskSuite(f"{suite}/{level}", split, size, build)
