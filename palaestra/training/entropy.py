"""EPO's entropy terms (Xu et al., arXiv 2509.22576): a bonus, and a smoothing penalty outside a corridor.

    loss = policy loss - entropy_coeff * (bonus - beta_k * smoothing)

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

from palaestra.config import NonNegative, NonNegativeFloat, NonNegativeOrInfinite, Positive
from palaestra.training.aggregate import Mode
from palaestra.training.entropy_history import ReferenceKind
from palaestra.training.steps import broadcast_steps

Penalty = Literal["hinge", "indicator"]
Schedule = Literal["paper", "constant", "code_piecewise"]

CODE_HORIZON = 150
"""The released code's schedule knows no other number of iterations."""


class EntropyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What EPO adds to a policy loss. Defaults: the paper's ALFWorld table; where it disagrees with its released
    code, the paper, with the code's behaviour as an option."""

    entropy_coeff: NonNegativeFloat = 0.001
    """lambda, weight of bonus and smoothing; 0 switches both off. Released code: the same name."""
    smoothing: bool = True
    """Off: the bonus alone. Released code: `entropy_smooth`."""
    low_ratio: NonNegativeFloat = 0.0
    """kappa_l: the corridor begins at this times the reference. Released code: `entropy_smooth_min_ratio`."""
    high_ratio: NonNegativeOrInfinite = 2.0
    """kappa_r: the corridor ends at this times the reference. Released code: `entropy_smooth_max_ratio`."""
    slope: NonNegativeFloat = 0.1
    """alpha, penalty per nat outside the corridor (0.05 on ScienceWorld); folds the code's `entropy_smooth_coeff` in.
    Below 0.5 the smoothing cannot reverse the bonus. Released code: `entropy_smooth_out_range_penalty`."""
    decay: NonNegativeFloat = 3.0
    """gamma, how fast the phase weight falls from 2 to 1. Hard-coded in the released code."""
    iterations: Positive | None = None
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
    """Of both terms: the paper's nested mean, or `token-mean` as in the released code. The modes with a constant take
    the policy loss's, `algorithm.aggregation_constant`."""
    late_turn_gate: NonNegative | None = None
    """Penalise only turns from this index on (released code: 25, and whole micro-batches at that); `None`: all
    turns."""

    def __post_init__(self) -> None:
        if self.low_ratio > self.high_ratio:
            raise ValueError(f"low_ratio {self.low_ratio} is above high_ratio {self.high_ratio}")


@dataclass(frozen=True, slots=True)
class Corridor:
    """Bounds on token entropy in nats; shape [] or [S] by turn, float64."""

    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, reference: Tensor, low_ratio: float, high_ratio: float) -> Corridor:
        """`ratio * reference`, constants; where the reference is NaN (unknown turn), no bounds at all."""
        reference = reference.detach()
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
