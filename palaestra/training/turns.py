"""The turns of an iteration, found in the columns of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.training.numbering import number


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns with policy tokens of an iteration, those of a trajectory after each other, in time order."""

    key: Tensor
    """[S, 2] int64: trajectory and turn."""
    owner: Tensor
    """[P] int64: turn of each policy token."""
    size: Tensor
    """[S] int64: its tokens."""
    following: Tensor
    """[S] int64: next turn of the trajectory, -1 for the last one. Turn numbers may have gaps."""

    @classmethod
    def of(cls, mask: Tensor, step_id: Tensor, traj: Tensor) -> Turns:
        """Of [B, T] mask and turns, and [B] trajectories."""
        row, _ = mask.nonzero(as_tuple=True)
        key, owner, size = number(torch.stack((traj[row], step_id[mask]), 1))
        following = torch.full_like(size, -1)
        same = key[1:, 0] == key[:-1, 0]
        following[:-1][same] = torch.arange(len(key))[1:][same]
        return cls(key, owner, size, following)

    def mean(self, values: Tensor) -> Tensor:
        """[S] float64: of a value per policy token [P]."""
        total = torch.zeros(len(self.size), dtype=torch.float64).index_add(0, self.owner, values.double())
        return total / self.size
