"""Weights that correct for the sampling engine's probabilities differing from the learner's (truncated importance
sampling, Yao et al. 2025). They are constants: no gradient passes through them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Level = Literal["token", "sequence", "geometric"]
LOG_RATIO_LIMIT = 20.0
"""Exponents are clipped to this on both sides."""


def importance_ratio(old: Tensor, rollout: Tensor, mask: Tensor, level: Level = "token") -> Tensor:
    """Untruncated ratios learner / engine, float64: [B, T] (0 where masked out) at token level, [B] at the others.

    `token`: of each token. `sequence`: of the whole row, a product. `geometric`: their geometric mean, 1 for an empty
    row.
    """
    inside = mask.bool()
    drift = torch.where(inside, old.detach().double() - rollout.detach().double(), 0)
    if level == "token":
        return torch.where(inside, _exp(drift), 0)
    total = drift.sum(1)
    if level == "sequence":
        return _exp(total)
    if level == "geometric":
        return _exp(total / inside.sum(1).clamp(min=1))
    raise ValueError(f"unknown level {level!r}; known: token, sequence, geometric")


def truncated_importance(
    old: Tensor,
    rollout: Tensor,
    mask: Tensor,
    *,
    level: Level = "token",
    cap: float | None = 2.0,
    mask_range: tuple[float, float] | None = None,
    normalise: bool = False,
) -> Tensor:
    """Weight of each token's loss, [B, T] float64, 0 where masked out.

    Args:
        old: [B, T], log-probs under the learner's weights before the update.
        rollout: [B, T], log-probs that the engine reported.
        mask: [B, T] bool or 0/1.
        level: see `importance_ratio`; a row's weight is repeated on its tokens. The geometric mean is never truncated.
        cap: ratios are cut off here; `None` leaves them.
        mask_range: (low, high): instead of truncating, drop what lies outside (weight 0) and keep the ratio inside.
        normalise: divide by the mean over the masked-in tokens, so that the weights average 1.
    """
    ratio = importance_ratio(old, rollout, mask, level)
    if mask_range is not None:
        low, high = mask_range
        weight = torch.where((ratio >= low) & (ratio <= high), ratio, 0)
    elif cap is not None and level != "geometric":
        weight = ratio.clamp(max=cap)
    else:
        weight = ratio
    inside = mask.bool()
    weight = torch.where(inside, weight if level == "token" else weight[:, None], 0)
    if not normalise:
        return weight
    mean = weight.sum() / inside.sum().clamp(min=1)
    return weight / torch.where(mean > 0, mean, 1.0)


def effective_sample_size(weight: Tensor, mask: Tensor) -> float:
    """`(sum w)^2 / (N sum w^2)` over the N masked-in tokens: 1 if all weights are equal, 0 if none is positive."""
    inside = mask.bool()
    kept = torch.where(inside, weight, 0).double()
    squares = float(kept.square().sum()) * int(inside.sum())
    return float(kept.sum()) ** 2 / squares if squares > 0 else 0.0


def _exp(x: Tensor) -> Tensor:
    return x.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
