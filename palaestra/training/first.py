"""Memory of the run's first iteration: what a plug-in measured there, for all later iterations to be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.seams import NOTHING, Moment, Need


@dataclass(slots=True)
class First:
    """The first number that it was given, as a tracker."""

    value: float | None = None
    requires: frozenset[Need] = NOTHING

    def of(self, value: float | None) -> float | None:
        """The first number ever; `None` while there was none."""
        if self.value is None:
            self.value = value
        return self.value

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Nothing: `of` has it already."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.value = state["value"]


def mean_entropy(batch: Batch) -> float | None:
    """Of the old policy over the policy tokens that take part, in nats; `None` where there are none."""
    assert batch.old_entropy is not None
    values: Tensor = batch.old_entropy[batch.trained].double()
    return float(values.mean()) if len(values) else None
