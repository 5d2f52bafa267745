"""Which of its own past trajectories a policy imitates, and how strongly (SPEAR, Qin et al. 2025, arXiv 2509.22601)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from palaestra.config import Config, Fraction, NonNegative, NonNegativeFloat, NonNegativeOrInfinite, Positive
from palaestra.training.scope import Scope

Kind = Literal["clip_cov", "kl_cov", "plain"]
"""What holds replayed tokens back."""


class ImitationOptions(Config, frozen=True, kw_only=True):
    """What is replayed, and how; defaults are those of ALFWorld."""

    coef: NonNegativeFloat = 1.0
    """Weight of the replayed loss once it is warm; 0 switches it off."""
    warmup: NonNegative = 100
    """Iteration at which its weight is `coef`; 200 for WebShop (and, by an oversight, for ALFWorld too in the released
    code), 300 for mathematics."""
    buffer: Positive = 2048
    """Most episodes kept."""
    tolerate: NonNegative = 5
    """Iterations that one is kept after its own; 10 at most."""
    baseline: NonNegative = 10240
    """Group means kept for P50."""
    replayed: Positive = 64
    """Most episodes an iteration, drawn among the good ones and shared among the optimiser steps."""
    clip_low: Fraction = 0.2
    """Of a token's ratio to the policy that played, whatever the policy loss of the recipe is."""
    clip_high: NonNegativeOrInfinite = 0.28
    """The same, above."""
    loss: Kind = "clip_cov"
    """Which replayed tokens are held back, see the plug-ins of these names."""
    rate: Fraction = 0.02
    """Part of the replayed tokens that may be picked."""
    low: NonNegativeFloat = 2.0
    """Covariances above this, in the scale of a success worth 10, are eligible; 1 for mathematics."""
    high: NonNegativeOrInfinite = 60.0
    """And below this; 40 for mathematics."""
    kl_coeff: NonNegativeFloat = 0.1
    """Penalty of `kl_cov`."""
    scope: Scope = "step"
    """Statistics of `clip_cov` and `kl_cov`: over the optimiser step, or each micro-batch as in the released code."""
    entropy_coeff: NonNegativeFloat = 0.0
    """Entropy bonus inside the replayed loss; the released code for agents has 0.001."""
    strict: bool = True
    """Replay only what is better than P50; the released code for agents replays what equals it."""
    std: bool | None = None
    """Divide A~ by P50 of the groups' standard deviations (where that is not 0); null does what `normalise` says."""
    weight_decay: Fraction = 0.0
    """Above 0: keep the advantage as it was and multiply it by this, without (6)."""
    outcome_only: bool = False
    """Leave the tool-call reward out of returns and P50. Both hold the weight of their own time, so while it fades old
    episodes with many calls seem better than they were."""
    burst: bool = False
    """As released: wait for more good episodes than 1.5 times `buffer`, replay a power of two of them, forget all."""
    separate_steps: bool = False
    """As released: the replayed loss in optimiser steps of its own, after the others. Adam makes up for a small weight
    there, so the warm-up has little effect."""


def recalibrated(reward: Tensor, p50: float, std_p50: float | None = None) -> Tensor:
    """`R - p50`: the advantage of replayed trajectories over what is usual by now, [N] float64, a constant.

    Args:
        reward: [N], returns as they were when the trajectories were played.
        p50: median of the mean returns of recent groups, see `BaselineBuffer`.
        std_p50: median of the groups' standard deviations, to divide by where advantages are normalised by theirs;
            above 0.
    """
    advantage = reward.detach().double() - p50
    return advantage if std_p50 is None else advantage / std_p50


def fresh(step: Tensor, now: int, tolerate: int) -> Tensor:
    """[N] bool: played at most `tolerate` iterations before `now`; `step` [N] int64 says when."""
    return now - step <= tolerate


def replayed(advantage: Tensor, again: Tensor, *, strict: bool = True) -> Tensor:
    """[N] bool: good when played and good by now.

    Args:
        advantage: [N], when played.
        again: [N], see `recalibrated`.
        strict: whether one that is as good as the baseline, no better, is left out. Part of the released code keeps
            it, which is `False`.
    """
    return (advantage > 0) & (again > 0 if strict else again >= 0)
