"""Overlong shaping: an episode loses reward as it comes near the longest that it may be (Yu et al. 2025, DAPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.numbering import number

Unit = Literal["tokens", "turns"]


@dataclass(frozen=True, slots=True)
class OverlongPenalty:
    """`-weight * clip((length - (limit - buffer)) / buffer, 0, 1)` of every episode.

    Length counts what the policy sampled: that an observation was long is not the agent's doing.
    """

    limit: float
    """The longest episode, in `unit`."""
    buffer: float
    """Length before `limit` over which the penalty grows."""
    weight: float = 1.0
    """Penalty at `limit` and beyond."""
    unit: Unit = "tokens"

    def __call__(self, batch: Batch) -> Tensor:
        """[N] float64, one per trajectory, at most 0."""
        row, column = batch.mask.nonzero(as_tuple=True)
        owner = batch.traj[row]
        if self.unit == "turns":
            owner = number(torch.stack((owner, batch.step_id[row, column]), 1)).known[:, 0]
        count = int(batch.traj.max()) + 1 if len(batch.traj) else 0
        over = torch.bincount(owner, minlength=count).double() - (self.limit - self.buffer)
        part = (over / self.buffer).clamp(0, 1) if self.buffer else (over > 0).double()
        return -self.weight * part
