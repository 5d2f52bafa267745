"""Clip-Cov and KL-Cov (Cui et al. 2025, arXiv 2505.22617), as SPEAR (Qin et al. 2025, arXiv 2509.22601) has them.

The few tokens where advantage and log-prob vary together make the policy's entropy collapse: those that it is sure of
already and that pay off. Clip-Cov takes the gradient from some of them, KL-Cov holds them to where they were.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from palaestra.seeds import derive_seed
from palaestra.training.surrogate import LOG_RATIO_LIMIT, surrogate


class Covariance(NamedTuple):
    """What each token adds to the covariance of advantage and log-prob."""

    value: Tensor
    """[B, T] float64, 0 where masked out."""
    mean_advantage: Tensor
    """[]: over the masked-in tokens, as is the next."""
    mean_logprob: Tensor


class CovarianceLoss(NamedTuple):
    """Per-token results, all [B, T]."""

    loss: Tensor
    """With gradient to the log-probs; 0 where masked out."""
    picked: Tensor
    """bool: tokens that were treated."""
    eligible: Tensor
    """bool: tokens that could have been."""
    clipped: Tensor
    """bool: the ratio left the clip range; no gradient there."""


def pick_generator(seed: int, *place: int, purpose: str = "clip_cov") -> torch.Generator:
    """For `pick`; a function of the run's seed and of where training stands, so a resumed run picks the same."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *place))


def covariance(advantage: Tensor, logprob: Tensor, mask: Tensor) -> Covariance:
    """`(A - mean A) (logprob - mean logprob)`, [B, T], without gradient; what lies outside the mask is ignored."""
    inside = mask.bool()
    count = inside.sum().clamp(min=1)
    columns = [torch.where(inside, x.detach().double(), 0) for x in (advantage, logprob)]
    means = [x.sum() / count for x in columns]
    centred = [x - mean for x, mean in zip(columns, means, strict=True)]
    return Covariance(torch.where(inside, centred[0] * centred[1], 0), means[0], means[1])


def between(value: Tensor, clipped: Tensor, low: float, high: float) -> Tensor:
    """bool: the covariances that Clip-Cov may pick, those strictly inside (low, high) that no clip has stopped."""
    return ~clipped & (value > low) & (value < high)


def largest(value: Tensor, rate: float) -> Tensor:
    """[P] bool: the `max(1, floor(rate * P))` largest of `value` [P]; among equals, those that come first."""
    order = value.nan_to_num(-math.inf).argsort(descending=True, stable=True)
    picked = torch.zeros_like(value, dtype=torch.bool)
    picked[order[: max(1, math.floor(rate * len(value)))]] = True
    return picked


def drift(logprob: Tensor, old: Tensor) -> Tensor:
    """`|logprob - old|`, bounded as log-ratios are, with gradient to `logprob`."""
    return (logprob - old.detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).abs()


def pick(eligible: Tensor, tokens: int, rate: float, generator: torch.Generator) -> Tensor:
    """At most `max(1, int(rate * tokens))` of the eligible, uniformly without replacement; bool, of the same shape."""
    flat = eligible.flatten().nonzero()[:, 0]
    limit = max(int(rate * tokens), 1)
    chosen = flat[torch.randperm(len(flat), generator=generator)[:limit].to(flat.device)]
    picked = torch.zeros_like(eligible).flatten()
    picked[chosen] = True
    return picked.view_as(eligible)


def clip_cov(
    logprob: Tensor,
    old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    generator: torch.Generator,
    rate: float = 0.02,
    low: float = 2.0,
    high: float = 60.0,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = None,
) -> CovarianceLoss:
    """The clipped surrogate, times 0 on tokens picked at random among those with `low < covariance < high` that the
    ratio does not clip already. Denominators are to count them all the same.

    Means and picks are those of the tokens given. Where they are too many for one pass, `picked` of a pass over all of
    them without gradient says what to take from `surrogate` in each part.

    Args:
        logprob: [B, T], under the current policy.
        old: [B, T], under the policy that the ratio is to: the one that sampled, for replayed trajectories.
        advantage: [B, T], a constant.
        mask: [B, T] bool or 0/1; whatever lies outside is ignored.
        generator: see `pick_generator`.
        rate: part of the masked-in tokens that may be picked; one always may.
        low: covariances depend on the scale of the rewards, so `low` and `high` do too.
        high: see `low`.
        clip_low: as in `surrogate`, as are the next two.
        clip_high: see `clip_low`.
        dual_clip: `None` for replayed trajectories, whose advantages are positive.
    """
    plain = surrogate(logprob, old, advantage, mask, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    inside = mask.bool()
    value = covariance(advantage, logprob, mask).value
    eligible = inside & between(value, plain.clipped, low, high)
    picked = pick(eligible, int(inside.sum()), rate, generator)
    return CovarianceLoss(torch.where(picked, 0, plain.loss), picked, eligible, plain.clipped)


def kl_cov(
    logprob: Tensor, old: Tensor, advantage: Tensor, mask: Tensor, *, rate: float = 0.02, coeff: float = 0.1
) -> CovarianceLoss:
    """`-A r` without clip, plus `coeff * |logprob - old|` on the `max(1, floor(rate * N))` of the N masked-in tokens
    with the largest covariance; among equals, those that come first, row by row. Arguments as in `clip_cov`."""
    inside = mask.bool()
    plain = surrogate(logprob, old, advantage, mask, clip_low=1.0, clip_high=math.inf, dual_clip=None)
    picked = torch.zeros_like(inside)
    picked[inside] = largest(covariance(advantage, logprob, mask).value[inside], rate)
    held = torch.where(picked, coeff * drift(torch.where(inside, logprob, 0), torch.where(inside, old, 0)), 0)
    return CovarianceLoss(plain.loss + held, picked, inside, plain.clipped)
