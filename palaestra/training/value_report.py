"""What a tracker of values knows, for the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palaestra.training.batch import Batch
from palaestra.training.seams import Moment, Need, Shaped
from palaestra.training.task_key import keys_of
from palaestra.training.value_tracker import ValueTracker


@dataclass(frozen=True, slots=True)
class ValueReport:
    """Changes nothing; a shaper, so that metrics hear of it."""

    values: ValueTracker
    requires: frozenset[Need] = frozenset()

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """Means over the episodes, of D over the tasks that have been played before."""
        assert batch.advantage is not None
        keys, drift = keys_of(batch), self.values.drift(batch)
        outcome = self.values.outcomes(batch)
        log = {
            "spo_value": _mean([self.values.value(key) for key in keys]),
            "spo_error": _mean(
                [(r - self.values.value(key)) ** 2 for r, key in zip(outcome.tolist(), keys, strict=True)]
            ),
            "spo_known": _mean([float(key in self.values.counts) for key in keys]),
            "spo_drift": _mean(list(drift.values())),
            "spo_outside": _mean(((outcome < 0) | (outcome > 1)).double().tolist()),
        }
        return Shaped(batch.advantage, log)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
