"""EMPG's arithmetic: advantages scaled by how sure the policy was of each turn (Wang et al., arXiv 2509.09265).

The equations are in `palaestra.training.plugins.empg`, which applies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat
from palaestra.training.turns import Turns

Center = Literal["step", "token", "none"]


class ModulationOptions(Config, frozen=True, kw_only=True):
    """Defaults: the published listing, but `zeta` from the one independent study."""

    k: NonNegativeFloat = 1.0
    """Sharpness of the scaling; 0 for none."""
    k_clarity: NonNegativeFloat = 1.0
    """k', sharpness of the bonus. `k_f` in the listing."""
    zeta: NonNegativeFloat = 0.05
    """Size of the bonus, for advantages of order 1; 0 for none. 0.1 in the listing."""
    center: Center = "step"
    """What (7) subtracts: the mean over turns, over tokens, or nothing."""
    percentile: Annotated[float, msgspec.Meta(ge=0.0, lt=0.5)] = 0.0
    """Instead of minimum and maximum in (2), this quantile and the opposite one, clipped to [0, 1]: 0.01 keeps one odd
    turn from deciding the scale of all. 0 is the paper's."""
    uniform_groups: Literal["zero", "keep"] = "zero"
    """Turns of groups without any advantage: 0 after (7), or as (7) leaves them."""
    eps: NonNegativeFloat = 1e-8
    """Of (2)."""
    eps_g: NonNegativeFloat = 1e-8
    """Of (3): the listing's. 0 is the paper's formula."""


@dataclass(frozen=True, slots=True)
class Modulation:
    """EMPG's quantities, one per turn [S] float64, and the advantages that follow [P] float64."""

    turns: Turns
    entropy: Tensor
    normalised: Tensor
    scale: Tensor
    """g."""
    clarity: Tensor
    """f = exp(-k' Hn)."""
    bonus: Tensor
    """zeta times the next turn's clarity."""
    modulated: Tensor
    """(6); the mean over its tokens, should the advantage differ within a turn."""
    shift: float
    """What (7) subtracts."""
    tokens: Tensor
    """(7) on the policy tokens, in row-major order."""


def modulate(
    advantage: Tensor,
    entropy: Tensor,
    mask: Tensor,
    step_id: Tensor,
    traj: Tensor,
    options: ModulationOptions | None = None,
) -> Modulation:
    """Equations (1) to (8); nothing carries gradient. Zero-variance groups are as (7) leaves them.

    Args:
        advantage: [B, T].
        entropy: [B, T], nats, of the policy before the update.
        mask: [B, T] bool: tokens that the policy sampled; nothing outside is read.
        step_id: [B, T] int64.
        traj: [B] int64.
        options: default, `ModulationOptions()`.
    """
    options = options or ModulationOptions()
    turns = Turns.of(mask, step_id, traj)
    gain = advantage.detach()[mask].double()
    mean_entropy = turns.mean(entropy.detach()[mask])
    normalised = _normalised(mean_entropy, options)
    raw = (-options.k * normalised).exp()
    scale = raw / (mean(raw) + options.eps_g)
    clarity = (-options.k_clarity * normalised).exp()
    bonus = torch.where(turns.following >= 0, options.zeta * clarity[turns.following], 0.0)
    tokens = gain * scale[turns.owner] + bonus[turns.owner]
    modulated = turns.mean(tokens)
    shift = {"step": mean(modulated), "token": mean(tokens), "none": 0.0}[options.center]
    return Modulation(turns, mean_entropy, normalised, scale, clarity, bonus, modulated, shift, tokens - shift)


def _normalised(entropy: Tensor, options: ModulationOptions) -> Tensor:
    if not len(entropy):
        return entropy
    low, high = entropy.quantile(options.percentile), entropy.quantile(1 - options.percentile)
    result: Tensor = (entropy - low) / (high - low + options.eps)
    return result.clamp(0, 1)


def mean(values: Tensor) -> float:
    """0 of nothing."""
    return float(values.mean()) if len(values) else 0.0
