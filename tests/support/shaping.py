"""Random batches for advantages and what shapes them."""

from __future__ import annotations

import torch
from torch import Tensor

from palaestra.training.batch import Batch

SPREAD = 1e3
"""Size of the garbage where masked out."""


def random_batch(seed: int, groups: int = 3, size: int = 3, length: int = 12) -> Batch:
    """Groups of equal size, a row a trajectory; turns with gaps, rows that may lack policy tokens, garbage outside."""
    g = torch.Generator().manual_seed(seed)
    rows = groups * size
    turn = torch.randint(0, 3, (rows, length), generator=g).cumsum(1)
    mask = (torch.rand(rows, length, generator=g) < 0.7) & (torch.arange(length) > 0)
    entropy = torch.rand(rows, length, generator=g)
    garbage = SPREAD * torch.randn(rows, length, generator=g)
    logprob = torch.where(mask, -torch.rand(rows, length, generator=g), garbage)
    return Batch(
        ids=torch.randint(1, 300, (rows, length), generator=g),
        length=torch.full((rows,), length),
        mask=mask,
        step_id=torch.where(mask, turn, -1),
        traj=torch.arange(rows),
        group=torch.arange(groups).repeat_interleave(size),
        reward=torch.randn(rows, generator=g, dtype=torch.float64),
        rollout_logprob=logprob,
        rollout_entropy=torch.where(mask, entropy, garbage),
        old_logprob=logprob,
        old_entropy=torch.where(mask, entropy, garbage),
        advantage=torch.where(mask, torch.randn(rows, generator=g)[:, None].expand(rows, length), 0.0),
    )


def permuted(batch: Batch, order: Tensor) -> Batch:
    """The same rows in another order; trajectories keep their numbers."""
    columns = ("ids", "length", "mask", "step_id", "traj", "group", "reward", "rollout_logprob", "rollout_entropy")
    more = ("old_logprob", "old_entropy", "advantage")
    return batch.with_(**{name: getattr(batch, name)[order] for name in (*columns, *more)})


def padded(batch: Batch, columns: int, fill: float) -> Batch:
    """The same rows with more padding, and `fill` wherever nothing was sampled."""
    wide: dict[str, tuple[Tensor, float]] = {
        "ids": (batch.ids, 7),
        "mask": (batch.mask, False),
        "step_id": (batch.step_id, -1),
    }
    for name in ("rollout_logprob", "rollout_entropy", "old_logprob", "old_entropy"):
        value = getattr(batch, name)
        wide[name] = (torch.where(batch.mask, value, fill), fill)
    if batch.advantage is not None:
        wide["advantage"] = (batch.advantage, 0.0)
    pad = torch.nn.functional.pad
    return batch.with_(**{name: pad(value, (0, columns), value=outside) for name, (value, outside) in wide.items()})


def by_turn(batch: Batch) -> Batch:
    """The same policy tokens with a row a turn."""
    pairs = torch.stack((batch.traj[:, None].expand(batch.shape), batch.step_id), -1)[batch.mask].unique(dim=0)
    row = torch.searchsorted(batch.traj, pairs[:, 0].contiguous())
    own = batch.mask[row] & (batch.step_id[row] == pairs[:, 1, None])
    rows = permuted(batch, row)
    return rows.with_(
        mask=own, step_id=torch.where(own, rows.step_id, -1), advantage=torch.where(own, rows.advantage, 0.0)
    )
