"""Which tasks an iteration plays, and how often each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palaestra.agents.rollout import Episode
from palaestra.config import RolloutConfig
from palaestra.envs.tasks import Task
from palaestra.errors import ConfigError
from palaestra.training.seams import Choice, Moment, Parts
from palaestra.training.shuffle import permutation


@dataclass(frozen=True, slots=True)
class Round:
    """Groups that are played together."""

    groups: list[list[Episode]]
    """Those of a group play the same task and seed."""
    places: tuple[int, ...]
    """Of the groups' tasks in the suite."""
    log: Mapping[str, float | None]
    """What chooser and allocator say of it."""

    @property
    def episodes(self) -> list[Episode]:
        """Of all groups, in order."""
        return [episode for group in self.groups for episode in group]


class TaskSampler:
    """Makes the episodes of an iteration: `groups` tasks, `groups * group_size` episodes."""

    def __init__(self, suite: Sequence[Task], config: RolloutConfig, seed: int) -> None:
        if not len(suite):
            raise ConfigError(f"the training suite {suite!r} has no tasks")
        self.suite, self.config, self.seed = suite, config, seed
        self._walk = Walk(seed)

    def round(
        self, moment: Moment, parts: Parts | None = None, *, groups: int | None = None, taken: Sequence[int] = ()
    ) -> Round:
        """What to play next.

        Args:
            moment: the iteration.
            parts: their `chooser` and `allocator`, where there are such.
            groups: how many; `config.groups` if not given.
            taken: places of the groups that this iteration has played already.
        """
        parts = parts or Parts()
        choice = (parts.chooser or self._walk)(self.suite, groups or self.config.groups, moment, taken)
        tasks = [self.suite[place] for place in choice.places]
        sizes, log = self._sizes(tasks, moment, parts)
        made = [
            self.group(moment.iteration, number, task, size)
            for number, (task, size) in enumerate(zip(tasks, sizes, strict=True), start=len(taken))
        ]
        return Round(made, tuple(choice.places), {**choice.log, **log})

    def group(self, iteration: int, number: int, task: Task, size: int) -> list[Episode]:
        """The episodes of one group."""
        name = f"{iteration}/{number}"
        return [Episode(task=task, id=f"{name}/{member}", group=name, seed=self.seed) for member in range(size)]

    def _sizes(
        self, tasks: Sequence[Task], moment: Moment, parts: Parts
    ) -> tuple[Sequence[int], Mapping[str, float | None]]:
        size = self.config.group_size
        if parts.allocator is None:
            return [size] * len(tasks), {}
        allocation = parts.allocator(tasks, size, moment)
        sizes = allocation.rollouts
        return sizes, {"rollouts_min": min(sizes), "rollouts_max": max(sizes), **allocation.log}


class Walk:
    """Goes through a suite in a new random order each epoch; no task comes twice before all have come once. Further
    groups of an iteration are drawn at random, so that the walk goes on as if there had been none."""

    def __init__(self, seed: int) -> None:
        self._seed, self._epoch = seed, -1
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)

    def __call__(self, suite: Sequence[Task], count: int, moment: Moment, taken: Collection[int] = ()) -> Choice:
        """The next `count` tasks."""
        if taken:
            order = permutation(len(suite), self._seed, "further tasks", moment.iteration, len(taken))
            return Choice(in_turn(order, count, taken))
        first = moment.iteration * count
        return Choice([self.place(position, len(suite)) for position in range(first, first + count)])

    def place(self, position: int, size: int) -> int:
        """Of the task at `position` from the start of the walk, in a suite of `size` tasks."""
        epoch, index = divmod(position, size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(size, self._seed, "tasks", epoch)
        return int(self._order[index])


def in_turn(order: NDArray[np.int64], count: int, taken: Collection[int] = ()) -> list[int]:
    """`count` of `order`: those that are not in `taken` first, then the others, then all over again."""
    played = np.isin(order, np.fromiter(taken, np.int64))
    full = np.concatenate((order[~played], order[played]))
    return [int(place) for place in np.resize(full, count)]
