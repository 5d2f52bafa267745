"""EPO's entropy terms (Xu et al., arXiv 2509.22576): a bonus, and a smoothing penalty outside a corridor.

    loss = policy loss - coefficient * (bonus - beta_k * smoothing)

The *bonus* is the policy's token entropy, averaged within turns, then over turns, then over trajectories. The
*smoothing* averages in the same way how far each token's entropy lies outside a corridor around the mean entropy of
the earlier iterations. Both carry gradient through the entropy; the corridor and `beta_k` are constants. While `slope
* beta_k < 1` the smoothing weakens the bonus above the corridor and strengthens it below, and never reverses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import msgspec
import torch
from torch import Tensor

from palaestra.training.aggregate import Mode, weighted_sum
from palaestra.training.entropy_history import EntropyHistory, EntropyRecord, ReferenceKind
from palaestra.training.steps import broadcast_steps

__all__ = [
    "Corridor",
    "EntropyHistory",
    "EntropyOptions",
    "EntropyRecord",
    "EntropyTerms",
    "corridor_penalty",
    "epo_terms",
    "phase_weight",
]

Penalty = Literal["hinge", "indicator"]
Schedule = Literal["paper", "constant", "code_piecewise"]

CODE_HORIZON = 150
"""The released code's schedule knows no other number of iterations."""


class EntropyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What EPO adds to a policy loss. Defaults: the paper's ALFWorld table; where it disagrees with its released
    code, the paper, with the code's behaviour as an option."""

    coefficient: float = 0.001
    """lambda, weight of bonus and smoothing; 0 switches both off. Released code: `entropy_coeff`."""
    smoothing: bool = True
    """Off: the bonus alone. Released code: `entropy_smooth`."""
    low_ratio: float = 0.0
    """kappa_l: the corridor begins at this times the reference. Released code: `entropy_smooth_min_ratio`."""
    high_ratio: float = 2.0
    """kappa_r: the corridor ends at this times the reference. Released code: `entropy_smooth_max_ratio`."""
    slope: float = 0.1
    """alpha, penalty per nat outside the corridor (0.05 on ScienceWorld); folds the code's `entropy_smooth_coeff` in.
    Below 0.5 the smoothing cannot reverse the bonus. Released code: `entropy_smooth_out_range_penalty`."""
    decay: float = 3.0
    """gamma, how fast the phase weight falls from 2 to 1. Hard-coded in the released code."""
    iterations: int | None = None
    """K, planned iterations of the phase weight; `None`: those of the run. Released code: `total_epochs`."""
    penalty: Penalty = "hinge"
    """`hinge`: distance to the corridor, as in the revised paper. `indicator`: 1 outside or on a bound, as in the
    released code; it has no gradient, so that it changes the logged loss only."""
    reference: ReferenceKind = "scalar"
    """`scalar`: the paper's mean over earlier iterations. `per_turn`: one per turn index. `per_turn_compat`: that
    with the released code's zero padding on the left."""
    include_current: bool = False
    """Count the running iteration in the reference, as the released code does."""
    schedule: Schedule = "paper"
    """Phase weight: `paper`, `constant` (1; the code without `enable_smooth_weights`) or `code_piecewise` (with it)."""
    aggregation: Mode = "traj-turn-token"
    """Of both terms: the paper's nested mean, or `token-mean` as in the released code."""
    late_turn_gate: int | None = None
    """Penalise only turns from this index on (released code: 25, and whole micro-batches at that); `None`: all
    turns."""


@dataclass(frozen=True, slots=True)
class Corridor:
    """Bounds on token entropy in nats; shape [] or [S] by turn, float64."""

    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, reference: Tensor, low_ratio: float, high_ratio: float) -> Corridor:
        """`ratio * reference`; where the reference is NaN (unknown turn), no bounds at all."""
        return cls(_bound(reference, low_ratio, -math.inf), _bound(reference, high_ratio, math.inf))

    def on_tokens(self, step_id: Tensor) -> tuple[Tensor, Tensor]:
        """Both bounds per token, [B, T], or [] where they do not depend on the turn. Turns that lie beyond are
        unbounded."""
        if self.low.ndim == 0:
            return self.low.to(step_id.device), self.high.to(step_id.device)
        return _by_turn(self.low, step_id, -math.inf), _by_turn(self.high, step_id, math.inf)


def _bound(reference: Tensor, ratio: float, unknown: float) -> Tensor:
    scaled = torch.full_like(reference, ratio) if math.isinf(ratio) else reference * ratio
    return torch.where(reference.isnan(), unknown, scaled)


def _by_turn(bound: Tensor, step_id: Tensor, unknown: float) -> Tensor:
    missing = max(0, (int(step_id.max()) + 1 if step_id.numel() else 0) - len(bound))
    return broadcast_steps(torch.cat((bound, bound.new_full((missing,), unknown))).to(step_id.device), step_id)


def corridor_penalty(entropy: Tensor, low: Tensor | float, high: Tensor | float, kind: Penalty = "hinge") -> Tensor:
    """Penalty per token, without the slope, of the shape of `entropy`.

    `hinge`: `max(0, low - H) + max(0, H - high)`; gradient -1 below, +1 above, 0 inside and on a bound. `indicator`:
    1 unless `low < H < high`, so a token on a bound pays; no gradient.
    """
    if kind == "hinge":
        return torch.relu(low - entropy) + torch.relu(entropy - high)
    if kind == "indicator":
        return (~((entropy > low) & (entropy < high))).to(entropy.dtype)
    raise ValueError(f"unknown penalty {kind!r}; known: hinge, indicator")


def phase_weight(k: int, total: int, gamma: float = 3.0, schedule: Schedule = "paper") -> float:
    """beta_k, the weight of the smoothing in iteration `k` (from 0) of `total`.

    `paper`: `1 + exp(-gamma k / max(1, total // 2))`, falling from 2 towards 1, also beyond `total`. `constant`: 1.
    `code_piecewise`: the released code's weight, which knows 150 iterations only: 1 to 0.827, then 0.769 to 0.04.
    """
    if schedule == "paper":
        return 1.0 + math.exp(-gamma * k / max(1, total // 2))
    if schedule == "constant":
        return 1.0
    if schedule != "code_piecewise":
        raise ValueError(f"unknown schedule {schedule!r}; known: paper, constant, code_piecewise")
    epoch, half = min(max(k, 0), CODE_HORIZON), CODE_HORIZON // 2
    if epoch <= half:
        return 1.0 - 0.2 * (1.0 - math.exp(-2.0 * epoch / half))
    return 0.8 * math.exp(-3.0 * (epoch - half) / (CODE_HORIZON - half))


@dataclass(frozen=True, slots=True)
class EntropyTerms:
    """The terms of one (micro-)batch. All add up over micro-batches that share their weights."""

    bonus: Tensor
    """L_H, scalar float64 with gradient."""
    smoothing: Tensor
    """L_smooth, scalar float64: with the slope, without beta. Gradient unless the penalty is the indicator."""
    loss: Tensor
    """What to add to the policy loss: `-coefficient * (bonus - beta * smoothing)`."""
    below: int
    """Tokens whose entropy lies below the corridor."""
    above: int
    """Tokens whose entropy lies above it."""
    tokens: int
    """Sampled tokens."""


def epo_terms(
    entropy: Tensor,
    mask: Tensor,
    step_id: Tensor,
    weights: Tensor,
    *,
    reference: Tensor | None,
    beta: float,
    options: EntropyOptions,
) -> EntropyTerms:
    """Bonus, smoothing and their loss.

    Args:
        entropy: [B, T], of the current policy with gradient, at the sampling temperature.
        mask: [B, T] bool or 0/1; entropies outside are ignored and get gradient 0.
        step_id: [B, T] int64, turn of each token.
        weights: [B, T], `token_weights(mask, options.aggregation, step_id=..., traj=...)` of the *whole* mini-batch.
        reference: `EntropyHistory.reference(options.reference, ...)`; `None` (first iteration): no smoothing.
        beta: `phase_weight(k, K, options.decay, options.schedule)`.
        options: the rest.
    """
    inside = mask.bool()
    kept = torch.where(inside, entropy, 0)
    bonus = weighted_sum(kept, inside, weights)
    tokens = int(inside.sum())
    if reference is None or not options.smoothing:
        smoothing = torch.zeros_like(bonus)
        return EntropyTerms(bonus, smoothing, -options.coefficient * bonus, 0, 0, tokens)
    low, high = Corridor.around(reference.detach(), options.low_ratio, options.high_ratio).on_tokens(step_id)
    gated = inside if options.late_turn_gate is None else inside & (step_id >= options.late_turn_gate)
    penalty = options.slope * corridor_penalty(kept.double(), low, high, options.penalty)
    smoothing = weighted_sum(penalty, gated, weights)
    return EntropyTerms(
        bonus,
        smoothing,
        -options.coefficient * (bonus - beta * smoothing),
        below=int((inside & (kept < low)).sum()),
        above=int((inside & (kept > high)).sum()),
        tokens=tokens,
    )
