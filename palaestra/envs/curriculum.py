"""Curricula: suites from easy to hard, and a controller that goes from one to the next by how often they are solved.

Any suites will do; those of one suite with another difficulty are the usual case. The controller is plain arithmetic
on successes, and its state is JSON, so that training can be stopped anywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from palaestra.envs.hashing import digest
from palaestra.envs.tasks import Task, TaskSuite, load_suite
from palaestra.errors import ConfigError, DataError


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One level."""

    suite: str
    """Reference, as `load_suite` takes it."""
    params: dict[str, Any] = {}
    """Parameters of the suite."""


class LevelledSuite(TaskSuite):
    """The tasks of all levels, one level after the other. A task is named `LEVEL/NAME`, levels counted from 0, because
    two levels may have tasks of one name."""

    def __init__(self, name: str, suites: Sequence[TaskSuite]) -> None:
        self.starts = (0, *accumulate(len(suite) for suite in suites))
        """Place of each level's first task; behind them, how many tasks there are."""
        self._suites = tuple(suites)
        super().__init__(name, suites[0].split, self.starts[-1], self._task)

    def _task(self, place: int) -> Task:
        level = bisect_right(self.starts, place) - 1
        task = self._suites[level][place - self.starts[level]]
        return msgspec.structs.replace(task, name=f"{level}/{task.name}")


def level_of(task_name: str) -> int:
    """The level of a task of a `LevelledSuite`."""
    return int(task_name.partition("/")[0])


def load_curriculum(levels: Sequence[Level]) -> LevelledSuite:
    """The suites of all levels as one.

    Raises:
        ConfigError: there are fewer than two levels, or one has no tasks.
        PalaestraError: what `load_suite` raises.
    """
    if len(levels) < 2:
        raise ConfigError("a curriculum has at least two levels")
    suites = [load_suite(level.suite, **level.params) for level in levels]
    empty = next((level.suite for level, suite in zip(levels, suites, strict=True) if not len(suite)), None)
    if empty is not None:
        raise ConfigError(f"level {empty} of the curriculum has no tasks")
    return LevelledSuite(f"curriculum-{digest(*((level.suite, level.params) for level in levels))}", suites)


class Controller:
    """Which level to play, by the last successes at it.

        r = mean of the last `window` successes at the present level, once there are `least`
        r >= raise_at: one level up          r <= lower_at: one level down

    A level that is entered is judged anew: what was known of it came from another agent.
    """

    def __init__(self, levels: int, *, raise_at: float, lower_at: float, window: int, least: int) -> None:
        """Raises:
        ConfigError: the settings contradict each other.
        """
        if not lower_at < raise_at:
            raise ConfigError(f"curriculum: lower_at ({lower_at:g}) must be below raise_at ({raise_at:g})")
        if least > window:
            raise ConfigError(f"curriculum: least ({least}) must not be above window ({window})")
        self.raise_at, self.lower_at, self.window, self.least = raise_at, lower_at, window, least
        self.level = 0
        """The present one."""
        self._results: list[list[int]] = [[] for _ in range(levels)]

    def rates(self) -> list[float | None]:
        """Of each level, how often it was solved lately; `None` where nothing is known."""
        return [sum(results) / len(results) if results else None for results in self._results]

    def observe(self, outcomes: Iterable[tuple[int, bool]]) -> None:
        """Take in what was played, as levels and successes, then decide once."""
        for level, success in outcomes:
            self._results[level] = [*self._results[level], int(success)][-self.window :]
        rate = self.rates()[self.level]
        if rate is None or len(self._results[self.level]) < self.least:
            return
        if rate >= self.raise_at and self.level + 1 < len(self._results):
            self._enter(self.level + 1)
        elif rate <= self.lower_at and self.level > 0:
            self._enter(self.level - 1)

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"level": self.level, "results": [list(results) for results in self._results]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            DataError: it did not come from there, or from a curriculum with another number of levels.
        """
        try:
            results = [[int(bool(result)) for result in each] for each in state["results"]]
            level = int(state["level"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not the saved state of a curriculum: {error!r}") from error
        if len(results) != len(self._results) or not 0 <= level < len(results):
            raise DataError(f"saved with {len(results)} levels of a curriculum; there are {len(self._results)} now")
        self.level, self._results = level, results

    def _enter(self, level: int) -> None:
        self.level, self._results[level] = level, []


def shares(level: int, count: int, earlier: float, draw: float) -> list[int]:
    """How many of `count` tasks to take from each level up to the present one.

    The part `earlier` comes from the levels before, evenly, so that they are not forgotten; from the easiest on where
    it cannot be even. At least one task is of the present level.

    Args:
        level: the present one.
        count: of the tasks, at least 1.
        earlier: in [0, 1).
        draw: in [0, 1), uniformly drawn; rounds so that the mean over draws is exact.
    """
    back = min(int(count * earlier + draw), count - 1) if level else 0
    each, rest = divmod(back, level) if level else (0, 0)
    return [*(each + (number < rest) for number in range(level)), count - back]
