"""Clipped policy-gradient losses: PPO (Schulman et al. 2017) with clip-higher (DAPO) and dual clip (Ye et al. 2019),
one ratio a span (GSPO), and a clip that keeps a bounded gradient (AEPO)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from palaestra.training.numbering import number

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
    preserved: Tensor | None = None
    """bool: clipped, but with a bounded gradient; `None` where the loss has no such tokens."""


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
    return _clipped(log_ratio.exp(), advantage, inside, clip_low, clip_high, dual_clip)


def span_surrogate(
    logprob: Tensor,
    old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    span: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    dual_clip: float | None = None,
) -> Surrogate:
    """The surrogate with one ratio a span, the geometric mean of its tokens' (GSPO, Zheng et al. 2025, where a span is
    a row): `s = exp(mean over the span of (logprob - old))`.

    Every token has the value `-A s` and, unless the span is clipped, the gradient `-A s`: averaged over a span, that is
    the gradient of `-A s` as a function of all its tokens.

    Args:
        logprob: [B, T] or [P]; so are `old`, `advantage` and `mask`, as in `surrogate`.
        old: under the weights before the first update of the iteration.
        advantage: a constant; where it differs within a span, tokens differ in value and may differ in being clipped.
        mask: bool or 0/1.
        span: int64, of the same shape: tokens with the same number belong together.
        clip_low: lower bound of `s` is `1 - clip_low`.
        clip_high: upper bound of `s` is `1 + clip_high`.
        dual_clip: above 1; `None` switches it off.
    """
    inside = mask.bool()
    drift = torch.where(inside, logprob - old.detach(), 0)
    _, owner, size = number(span[inside])
    total = drift.new_zeros(len(size), dtype=torch.float64).index_add(0, owner, drift.detach()[inside].double())
    mean = torch.zeros_like(drift).masked_scatter(inside, (total / size)[owner].to(drift.dtype))
    log_ratio = (mean + (drift - drift.detach())).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return _clipped(log_ratio.exp(), advantage, inside, clip_low, clip_high, dual_clip)


def balanced_surrogate(
    logprob: Tensor,
    old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Surrogate:
    """Entropy-balanced clipping (AEPO, Dong et al. 2025, equations 14-17): the value of `surrogate`, another gradient.

    Where a positive advantage meets a ratio above `1 + clip_high`, `surrogate` has no gradient; here it is that of the
    bound, `-A (1 + clip_high)`. Everywhere else both are the same. Arguments as in `surrogate`.
    """
    inside = mask.bool()
    columns = logprob.detach(), old, advantage, mask
    plain = surrogate(*columns, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    gain = torch.where(inside, advantage.detach(), 0)
    preserved = (gain > 0) & (plain.ratio > 1 + clip_high)
    beyond = torch.where(inside, logprob.detach() - old.detach(), 0).abs() > LOG_RATIO_LIMIT
    constant = plain.clipped | plain.dual_clipped | beyond
    factor = torch.where(preserved, 1 + clip_high, torch.where(constant, 0, plain.ratio))
    # F, A and the value are constants, so that the gradient cannot depend on how max and min break ties.
    loss = torch.where(inside, plain.loss - factor * gain * (logprob - logprob.detach()), 0)
    return replace(plain, loss=loss, preserved=preserved)


def _clipped(
    ratio: Tensor, advantage: Tensor, inside: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> Surrogate:
    """Per-token loss of a ratio with gradient."""
    gain = torch.where(inside, advantage.detach(), 0)
    fixed = ratio.detach()
    clipped = ((gain > 0) & (fixed > 1 + clip_high)) | ((gain < 0) & (fixed < 1 - clip_low))
    effective = torch.where(clipped, fixed.clamp(1 - clip_low, 1 + clip_high), ratio)
    dual_clipped = torch.zeros_like(clipped)
    if dual_clip is not None:
        dual_clipped = (gain < 0) & (fixed > dual_clip)
        effective = torch.where(dual_clipped, dual_clip, effective)
    loss = torch.where(inside, -gain * effective, 0)
    return Surrogate(loss, torch.where(inside, fixed, 0), clipped, dual_clipped)
