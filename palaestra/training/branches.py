"""Credit for what several trajectories have in common: the turns before the place at which one branched off another.

Their tokens are trained once: in the row of the trajectory that sampled them, or, where that row is left out of the
update, in the first one through them that is not. What they are worth is the mean of what they are worth to all
trajectories that go through them and take part (the hard estimate of ARPO, Dong et al., arXiv 2507.19849):

    A_shared = 1/d sum over the d trajectories through the token of A_i
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from palaestra.training.batch import Allowed, Batch


def shared_advantage(estimate: Callable[[Batch], Tensor], batch: Batch, through: Tensor | None = None) -> Tensor:
    """What `estimate` says, and on shared tokens the mean over the trajectories through them; [B, T] float32.

    Args:
        estimate: advantages [B, T] of a batch in which every trajectory has all of its tokens.
        batch: as it was played.
        through: [B] bool, the rows that have a part in a mean, those that were kept as a rule; all for `None`. Tokens
            of the others alone are worth what they are to the trajectory that sampled them.
    """
    if batch.copy_of is None:
        return estimate(batch)
    advantage = estimate(whole(batch)).double()
    part = torch.ones_like(batch.mask) if through is None else through[:, None].expand(batch.shape)
    copied, own = part & (batch.copy_of >= 0), (batch.mask & part).flatten()
    target, given = batch.copy_of[copied], advantage[copied]
    total = torch.where(own, advantage.flatten(), 0.0).index_add(0, target, given)
    count = own.double().index_add(0, target, torch.ones_like(given))
    mean = torch.where(count > 0, total / count.clamp(min=1), advantage.flatten())
    return torch.where(batch.mask, mean.view(batch.shape), 0.0).float()


def handed_on(batch: Batch) -> Batch:
    """The batch in which shared tokens of rows that were left out are trained in the first kept row that has them.

    The two places change roles, with all that the batch holds of them: after the same tokens, it is true of both. What
    no kept row has stays where it is, and is not trained.
    """
    if batch.copy_of is None or batch.kept is None:
        return batch
    places, width = torch.arange(batch.ids.numel()), batch.shape[1]
    heir = (batch.kept[:, None] & (batch.copy_of >= 0)).flatten().nonzero()[:, 0]
    home = batch.copy_of.flatten()[heir]
    orphaned = ~batch.kept[home // width]
    first = torch.full_like(places, len(places)).scatter_reduce(0, home[orphaned], heir[orphaned], "amin")
    old = (first < len(places)).nonzero()[:, 0]
    if not len(old):
        return batch
    exchanged = places.clone()
    exchanged[first[old]], exchanged[old] = old, first[old]
    moved = _everywhere(batch, lambda column: column.flatten()[exchanged].view(batch.shape))
    assert moved.copy_of is not None
    copy_of = torch.where(moved.copy_of >= 0, exchanged[moved.copy_of.clamp(min=0)], -1)
    return moved.with_(copy_of=copy_of, allowed=_reordered(batch, exchanged[moved.mask.flatten()]))


def whole(batch: Batch) -> Batch:
    """The batch as if every trajectory had sampled all of its tokens itself, to estimate from: copies have the columns
    of their originals. Not to be trained on; which tokens a constraint allowed is not in it."""
    if batch.copy_of is None:
        return batch
    copied, source = batch.copy_of >= 0, batch.copy_of.clamp(min=0)

    def filled(column: Tensor) -> Tensor:
        return torch.where(copied, column.flatten()[source], column)

    return _everywhere(batch, filled).with_(mask=batch.mask | copied, copy_of=None, allowed=None)


def _everywhere(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """All of its columns [B, T] changed."""
    columns: dict[str, Any] = {
        each.name: change(value)
        for each in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, each.name), Tensor) and value.shape == batch.ids.shape
    }
    return batch.with_(**columns, extra={name: change(column) for name, column in batch.extra.items()})


def _reordered(batch: Batch, places: Tensor) -> Allowed | None:
    """What was allowed at `places` [P], positions of policy tokens in the flattened batch."""
    if batch.allowed is None:
        return None
    ids, offsets = batch.allowed.ids, batch.allowed.offsets
    entry = (batch.mask.flatten().cumsum(0) - 1)[places]
    size = offsets.diff()[entry]
    end = size.cumsum(0)
    within = torch.arange(int(size.sum())) - (end - size).repeat_interleave(size)
    return Allowed(ids[offsets[entry].repeat_interleave(size) + within], torch.cat((end.new_zeros(1), end)))
