"""The shared memory of a vector: what workers and their owner tell each other at every step."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
from gymnasium import spaces

from palaestra.envs.vector.layout import Columns, size_of


class Memory:
    """One mapping, seen alike from every process that has the file.

    Args:
        file: descriptor of `new_file` with the same arguments; it may be closed afterwards.
        observation_space, action_space: of one environment.
        count: environments.
        workers: worker processes.
    """

    def __init__(
        self,
        file: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        count: int,
        workers: int,
    ) -> None:
        self._map = mmap.mmap(file, _size(observation_space, action_space, count, workers))
        start = size_of(observation_space, count)
        self.observations = Columns(observation_space, count, self._map)
        self.actions = Columns(action_space, count, self._map, start)
        start += size_of(action_space, count)
        self.rewards = np.ndarray(count, np.float64, self._map, start)
        self.now = np.ndarray(workers, np.int64, self._map, start + 8 * count)
        """Which environment each worker is busy with."""
        start += 8 * (count + workers)
        self.terminated = np.ndarray(count, np.bool_, self._map, start)
        self.truncated = np.ndarray(count, np.bool_, self._map, start + count)

    def keep_from_forks(self) -> None:
        """A process that this one forks has no part in the memory: were it to come back to its steps, it would end."""
        if hasattr(mmap, "MADV_DONTFORK"):
            self._map.madvise(mmap.MADV_DONTFORK)

    def close(self) -> None:
        """Let the mapping go, as soon as nobody holds an array of it any more."""
        self.__dict__.clear()


def new_file(observation_space: spaces.Space[Any], action_space: spaces.Space[Any], count: int, workers: int) -> int:
    """The descriptor of a new file in memory, large enough."""
    file = os.memfd_create("palaestra-vector")
    os.ftruncate(file, _size(observation_space, action_space, count, workers))
    return file


def _size(observation_space: spaces.Space[Any], action_space: spaces.Space[Any], count: int, workers: int) -> int:
    return size_of(observation_space, count) + size_of(action_space, count) + 8 * workers + 10 * count
