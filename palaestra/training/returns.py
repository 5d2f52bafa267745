"""Returns of a batch, one a trajectory however many rows it has."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from palaestra.training.advantage import EQUAL
from palaestra.training.batch import Batch
from palaestra.training.numbering import number


class Returns(NamedTuple):
    """Of `N` trajectories in `G` groups, both in sorted order of their identities."""

    value: Tensor
    """[N] float64."""
    group: Tensor
    """[N] int64: position of the trajectory's group."""
    row_group: Tensor
    """[B] int64: position of the row's group."""
    mean: Tensor
    """[G] float64: over the group's trajectories."""
    std: Tensor
    """[G] float64: the same, divisor n; exactly 0 where all are equal."""


def returns_of(batch: Batch) -> Returns:
    """Those of all rows, also of the ones that filters left out."""
    row_group = number(batch.group).number
    known, entry, _ = number(torch.stack((row_group, batch.traj), 1))
    value = batch.reward.new_zeros(len(known)).scatter_reduce(0, entry, batch.reward, "amax", include_self=False)
    group = known[:, 0]
    zeros = value.new_zeros(int(group.max()) + 1 if len(group) else 0)
    count = zeros.index_add(0, group, torch.ones_like(value))
    mean = zeros.index_add(0, group, value) / count
    std = (zeros.index_add(0, group, (value - mean[group]) ** 2) / count).sqrt()
    low = zeros.scatter_reduce(0, group, value, "amin", include_self=False)
    high = zeros.scatter_reduce(0, group, value, "amax", include_self=False)
    return Returns(value, group, row_group, mean, torch.where(high - low <= EQUAL, 0.0, std))


def group_means(batch: Batch) -> list[float]:
    """The mean return of every group that has a row left, in sorted order of the groups.

    A trajectory that was left out while others of its group were not still counts: its return is the group's too.
    """
    found = returns_of(batch)
    return [float(found.mean[g]) for g in _left(found, batch)]


def group_stds(batch: Batch) -> list[float]:
    """Their standard deviations, in the same order."""
    found = returns_of(batch)
    return [float(found.std[g]) for g in _left(found, batch)]


def _left(found: Returns, batch: Batch) -> list[int]:
    groups: list[int] = number(found.row_group[batch.rows]).known.tolist()
    return groups
