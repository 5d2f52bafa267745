"""The clipped policy-gradient loss: PPO (Schulman et al. 2017), clip-higher (DAPO), dual clip (Ye et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clipped to this on both sides before `exp`; beyond it the gradient is 0."""


@dataclass(frozen=True, slots=True)
class Surrogate:
    """Per-token results, all [B, T], 0 or false where masked out."""

    loss: Tensor
    """With gradient to the log-probs."""
    ratio: Tensor
    """pi / pi_old, without gradient."""
    clipped: Tensor
    """bool: the ratio left the clip range in the direction that the advantage asks for; no gradient there."""
    dual_clipped: Tensor
    """bool: a negative advantage with a ratio above `dual_clip`; no gradient there either."""


def surrogate(
    logprob: Tensor,
    old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Surrogate:
    """Per-token loss `-A r`, held constant where a further step in that direction should not be rewarded.

    With `r = exp(logprob - old)`: `max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`, and for a negative advantage at
    most `-A dual_clip`. The gradient with respect to `logprob` is `-A r`, or 0 where (dual-)clipped.

    Args:
        logprob: [B, T], under the current policy.
        old: [B, T], under the weights before the first update of the iteration.
        advantage: [B, T] or [B, 1], a constant.
        mask: [B, T] bool or 0/1; whatever lies outside, even infinities, is ignored.
        clip_low: lower bound is `1 - clip_low`.
        clip_high: upper bound is `1 + clip_high` (DAPO: 0.28).
        dual_clip: above 1; `None` switches it off.
    """
    inside = mask.bool()
    log_ratio = torch.where(inside, logprob - old.detach(), 0).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    gain = torch.where(inside, advantage.detach(), 0)
    ratio = log_ratio.exp()
    fixed = ratio.detach()
    clipped = ((gain > 0) & (fixed > 1 + clip_high)) | ((gain < 0) & (fixed < 1 - clip_low))
    effective = torch.where(clipped, fixed.clamp(1 - clip_low, 1 + clip_high), ratio)
    dual_clipped = torch.zeros_like(clipped)
    if dual_clip is not None:
        dual_clipped = (gain < 0) & (fixed > dual_clip)
        effective = torch.where(dual_clipped, dual_clip, effective)
    loss = torch.where(inside, -gain * effective, 0)
    return Surrogate(loss, torch.where(inside, fixed, 0), clipped, dual_clipped)
