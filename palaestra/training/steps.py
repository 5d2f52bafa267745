"""From tokens to turns and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class StepMean(NamedTuple):
    """Means of each row's turns; column `t` is turn `t`."""

    mean: Tensor
    """[B, S], S = 1 + the largest turn; 0 where the row has no such turn."""
    length: Tensor
    """[B, S] int64: tokens in the turn."""


def step_mean(x: Tensor, step_id: Tensor, mask: Tensor | None = None) -> StepMean:
    """Mean of `x` [B, T] over the tokens of each turn: `X_step(i, t) = mean {X_ij : step_id_ij = t}`.

    Args:
        x: [B, T]; carries gradient through.
        step_id: [B, T] int64, -1 where a token belongs to no turn.
        mask: [B, T] bool or 0/1, narrows which tokens count; default, all with a turn.
    """
    inside = step_id >= 0 if mask is None else (step_id >= 0) & mask.bool()
    steps = int(step_id.max()) + 1 if step_id.numel() else 0
    column = torch.where(inside, step_id, steps)
    shape = (x.shape[0], steps + 1)
    length = torch.zeros(shape, dtype=torch.int64, device=x.device).scatter_add_(1, column, inside.long())
    total = x.new_zeros(shape).scatter_add(1, column, torch.where(inside, x, 0))
    return StepMean(mean=(total / length.clamp(min=1))[:, :steps], length=length[:, :steps])


def broadcast_steps(step: Tensor, step_id: Tensor) -> Tensor:
    """Each turn's value on its tokens: `X_tok(i, j) = X_step(i, step_id_ij)`, 0 where `step_id` is -1.

    `step` is [B, S], or [S] for a value shared by all rows.
    """
    table = step.expand(step_id.shape[0], -1) if step.ndim == 1 else step
    inside = step_id >= 0
    if not table.shape[1]:
        return torch.zeros_like(step_id, dtype=step.dtype)
    return torch.where(inside, table.gather(1, step_id.clamp(min=0)), 0)
