"""Credit for what several trajectories have in common: the turns before the place at which one branched off another.

Their tokens are trained once, in the row of the trajectory that sampled them. What they are worth is the mean of what
they are worth to all trajectories that go through them (the hard estimate of ARPO, Dong et al., arXiv 2507.19849):

    A_shared = 1/d sum over the d trajectories through the token of A_i
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from palaestra.training.batch import Batch


def shared_advantage(estimate: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """What `estimate` says, and on shared tokens the mean over the trajectories through them; [B, T] float32.

    Args:
        estimate: advantages [B, T] of a batch in which every trajectory has all of its tokens.
        batch: rows that filters left out have no part in a mean.
    """
    if batch.copy_of is None:
        return estimate(batch)
    advantage = estimate(whole(batch)).double()
    copied = batch.copy_of >= 0
    if batch.kept is not None:
        copied = copied & batch.kept[:, None]
    target = batch.copy_of[copied]
    total = torch.where(batch.mask, advantage, 0.0).flatten().index_add(0, target, advantage[copied])
    count = torch.ones_like(total).index_add(0, target, torch.ones_like(advantage[copied]))
    return torch.where(batch.mask, (total / count).view(batch.shape), 0.0).float()


def whole(batch: Batch) -> Batch:
    """The batch as if every trajectory had sampled all of its tokens itself, to estimate from: copies have the columns
    of their originals. Not to be trained on; which tokens a constraint allowed is not in it."""
    if batch.copy_of is None:
        return batch
    copied, source = batch.copy_of >= 0, batch.copy_of.clamp(min=0)

    def filled(column: Tensor) -> Tensor:
        return torch.where(copied, column.flatten()[source], column)

    columns: dict[str, Any] = {
        each.name: filled(value)
        for each in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, each.name), Tensor) and value.shape == batch.ids.shape
    }
    extra = {name: filled(column) for name, column in batch.extra.items()}
    columns |= {"mask": batch.mask | copied, "extra": extra, "copy_of": None, "allowed": None}
    return batch.with_(**columns)
