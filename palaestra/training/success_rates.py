"""How often tasks were solved when they were last played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.errors import CheckpointError
from palaestra.training.batch import Batch
from palaestra.training.seams import Moment, Need
from palaestra.training.task_key import keys_of


class SuccessRates:
    """A tracker: of each task, the outcomes of its last visit, and those before with less weight.

        wins <- memory wins + sum r,   visits <- memory visits + n,   rate = wins / visits

    `r` is the reward that the environment gave, `low` to `high` mapped to 0 to 1 and clipped.
    """

    requires: frozenset[Need] = frozenset()

    def __init__(self, memory: float = 0.0, low: float = 0.0, high: float = 1.0) -> None:
        self._memory, self._low, self._high = memory, low, high
        self._counts: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def rate(self, key: str) -> float | None:
        """In [0, 1]; `None` for a task that was never played."""
        wins, visits = self._counts.get(key, (0.0, 0.0))
        return wins / visits if visits else None

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Take in an iteration; filters make no difference."""
        assert batch.episodes is not None
        found: dict[str, list[float]] = {}
        for key, episode in zip(keys_of(batch), batch.episodes, strict=True):
            part = (episode.total_reward - self._low) / (self._high - self._low)
            found.setdefault(key, []).append(min(1.0, max(0.0, part)))
        for key, outcomes in found.items():
            wins, visits = self._counts.get(key, (0.0, 0.0))
            memory = self._memory
            self._counts[key] = (memory * wins + sum(sorted(outcomes)), memory * visits + len(outcomes))

    def state_dict(self) -> dict[str, Any]:
        """JSON values; floats keep every bit."""
        return {"counts": {key: list(counts) for key, counts in self._counts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: `state` did not come from there.
        """
        try:
            self._counts = {key: (float(wins), float(visits)) for key, (wins, visits) in state["counts"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not saved success rates: {error!r}") from error
