"""The tracker that keeps EPO's memory: what each iteration's entropies were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palaestra.training.batch import Batch
from palaestra.training.entropy_history import EntropyHistory, EntropyRecord
from palaestra.training.seams import Moment, Need


@dataclass(frozen=True, slots=True)
class EntropyTracker:
    """Remembers the old policy's entropy of every iteration."""

    history: EntropyHistory = field(default_factory=EntropyHistory)
    requires: frozenset[Need] = frozenset({"old_entropy"})

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Append this iteration."""
        self.history.append(measure(batch))

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return self.history.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.history.load_state_dict(state)


def measure(batch: Batch) -> EntropyRecord:
    """The old policy's entropy over a whole rollout batch."""
    assert batch.old_entropy is not None
    return EntropyRecord.measure(batch.old_entropy, batch.trained, batch.step_id, batch.traj)
