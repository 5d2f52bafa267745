"""Which tasks an iteration plays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palaestra.agents.rollout import Episode
from palaestra.config import RolloutConfig
from palaestra.envs.tasks import Task
from palaestra.errors import ConfigError
from palaestra.training.shuffle import permutation


class TaskSampler:
    """Walks through a suite in a new random order each epoch; no task comes twice before all have come once."""

    def __init__(self, suite: Sequence[Task], config: RolloutConfig, seed: int) -> None:
        if not len(suite):
            raise ConfigError(f"the training suite {suite!r} has no tasks")
        self.suite, self.config, self.seed = suite, config, seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)

    def episodes(self, iteration: int) -> list[Episode]:
        """The iteration's episodes, `groups * group_size` of them; those of a group play the same task and seed."""
        config, first = self.config, iteration * self.config.groups
        return [
            Episode(
                task=task,
                id=f"{iteration}/{number}/{member}",
                group=f"{iteration}/{number}",
                seed=self.seed,
            )
            for number, task in enumerate(map(self._task, range(first, first + config.groups)))
            for member in range(config.group_size)
        ]

    def _task(self, position: int) -> Task:
        epoch, index = divmod(position, len(self.suite))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(len(self.suite), self.seed, "tasks", epoch)
        return self.suite[int(self._order[index])]
