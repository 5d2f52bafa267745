"""What a task is worth to the policy, learned from single episodes (SPO, Xu and Ding 2025, arXiv 2509.13232).

    V = a / (a + b)                 the mean of a Beta distribution, per task; a = b = 1/2 before the first visit
    a <- rho a + sum r              r in [0, 1]: the outcomes of a visit
    b <- rho b + sum (1 - r)
    rho = clip(2^(-D / D_half), rho_min, rho_max)

`D` is how far the policy has moved as far as this task is concerned: the mean of `abs(log pi_now - log pi_then)` over
the tokens of the response that was given at the task's previous visit, each policy being the one that played; 0 at the
first visit. The farther it has moved, the less do earlier outcomes count. A visit's own outcomes do not enter the value
that they are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palaestra.errors import CheckpointError
from palaestra.training.batch import Batch
from palaestra.training.seams import Moment, Need
from palaestra.training.stored import Stored, put, take
from palaestra.training.task_key import keys_of

PRIOR = (0.5, 0.5)
"""Counts of a task that was never played."""
SMALLEST = 1e-9
"""Least count: after thousands of equal outcomes a value still lies inside (0, 1)."""


@dataclass(frozen=True, slots=True)
class ValueTracker:
    """The counts of every task, and its last response."""

    name: str
    """Under which it is one of the algorithm's trackers."""
    d_half: float = 0.06
    rho_min: float = 0.875
    rho_max: float = 0.96
    low: float = 0.0
    """Reward that counts as 0."""
    high: float = 1.0
    """Reward that counts as 1."""
    counts: dict[str, tuple[float, float]] = field(default_factory=dict)
    responses: dict[str, Stored] = field(default_factory=dict)
    requires: frozenset[Need] = frozenset({"old_logprob"})

    def value(self, key: str) -> float:
        """V of a task, in (0, 1)."""
        a, b = self.counts.get(key, PRIOR)
        return a / (a + b)

    def outcomes(self, batch: Batch) -> Tensor:
        """[N] float64: the return of each trajectory, `low` to `high` mapped to 0 to 1."""
        reward = batch.reward.new_zeros(len(batch.episodes or ()))
        reward[batch.traj] = batch.reward
        return (reward - self.low) / (self.high - self.low)

    def recall(self, batch: Batch, moment: Moment) -> Batch | None:
        """The last responses to the batch's tasks."""
        stored = [self.responses[key] for key in self._seen(batch)]
        return put(stored, torch.zeros(len(stored)), temperature=batch.temperature) if stored else None

    def drift(self, batch: Batch) -> dict[str, float]:
        """D of those of the batch's tasks that have a last response."""
        rows = batch.recalled.get(self.name)
        if rows is None:
            return {}
        assert rows.old_logprob is not None
        change = torch.where(rows.mask, (rows.old_logprob - rows.rollout_logprob).abs(), 0.0).double().sum(1)
        sums = torch.zeros(2, int(rows.traj.max()) + 1, dtype=torch.float64)
        sums.index_add_(1, rows.traj, torch.stack((change, rows.mask.sum(1).double())))
        return dict(zip(self._seen(batch), (sums[0] / sums[1]).tolist(), strict=True))

    def rho(self, drift: float) -> float:
        """What is left of the counts."""
        return min(self.rho_max, max(self.rho_min, math.exp2(-drift / self.d_half)))

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Forget, count, and keep a response of each task, that of the first of its episodes by id."""
        drift, found = self.drift(batch), self.outcomes(batch).clamp(0, 1).tolist()
        visits: dict[str, list[float]] = {}
        for key, outcome in zip(keys_of(batch), found, strict=True):
            visits.setdefault(key, []).append(outcome)
        for key, values in visits.items():
            (a, b), rho = self.counts.get(key, PRIOR), self.rho(drift.get(key, 0.0))
            won, lost = math.fsum(values), math.fsum(1 - value for value in values)
            self.counts[key] = max(SMALLEST, rho * a + won), max(SMALLEST, rho * b + lost)
        if self.rho_min < self.rho_max and self.d_half < math.inf:
            self._keep_responses(batch, moment)

    def _keep_responses(self, batch: Batch, moment: Moment) -> None:
        assert batch.episodes is not None
        tokens = batch.traj.new_zeros(len(batch.episodes)).index_add(0, batch.traj, batch.mask.sum(1)).tolist()
        first: dict[str, int] = {}
        for number, key in enumerate(keys_of(batch)):
            best = first.get(key)
            if tokens[number] and (best is None or batch.episodes[number].id < batch.episodes[best].id):
                first[key] = number
        taken = take(batch.with_(kept=None), moment.iteration, list(first.values()))
        self.responses.update(zip(first, taken, strict=True))

    def _seen(self, batch: Batch) -> list[str]:
        """The tasks of the batch that have a last response, each once."""
        return [key for key in dict.fromkeys(keys_of(batch)) if key in self.responses]

    def state_dict(self) -> dict[str, Any]:
        """JSON values; floats keep every bit."""
        return {
            "counts": {key: list(counts) for key, counts in self.counts.items()},
            "responses": {key: stored.state_dict() for key, stored in self.responses.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: `state` did not come from there.
        """
        try:
            counts = {key: (float(a), float(b)) for key, (a, b) in state["counts"].items()}
            responses = {key: Stored.of_state(stored) for key, stored in state["responses"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not saved values of tasks: {error!r}") from error
        self.counts.clear()
        self.counts.update(counts)
        self.responses.clear()
        self.responses.update(responses)
