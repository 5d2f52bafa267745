"""STEER: tokens that would change the entropy most are weighed down (STEER, arXiv 2510.10150).

    Omega = | A / pi_old * pi (1 - pi) (log pi + H) |            first-order change of a token's entropy
    w     = w_max - (Omega - min Omega) (w_max - w_min) / (max Omega - min Omega)      linear
    w     = exp(-k Omega),  k = -ln(w_min) / max(max Omega, floor)                     exponential
    loss  = w * loss

over the policy tokens of the optimiser step, `pi`, `H` of the policy before the step; `w` carries no gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat, PositiveFloat, Recipe
from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, Gated, Moment, Need, Parts, Tokens

TINY = 1e-8
"""Probabilities are kept this far from 0 and 1, as in the released code."""


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the released code's."""

    map: Literal["linear", "exponential"] = "linear"
    """How weights fall with Omega."""
    w_min: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.8
    """Weight of the largest Omega."""
    w_max: PositiveFloat = 1.2
    """Weight of the smallest Omega under `linear`; `exponential` gives 1 to Omega 0."""
    floor: NonNegativeFloat = 0.02
    """Under `exponential`: where all Omegas are below this, none is weighed down to `w_min`."""


def entropy_change(logprob: Tensor, entropy: Tensor, old_logprob: Tensor, advantage: Tensor) -> Tensor:
    """Omega, [P] float64; 0 where the result would not be finite."""
    low, high = math.log(TINY), math.log1p(-TINY)
    log_p, h, log_old, gain = (column.detach().double() for column in (logprob, entropy, old_logprob, advantage))
    log_p, log_old = log_p.clamp(low, high), log_old.clamp(low, 0.0)
    omega = gain * (log_p - log_old).exp() * (1 - log_p.exp()) * (log_p + h)
    return torch.where(omega.isfinite(), omega, 0.0).abs()


def weights(omega: Tensor, settings: Settings) -> Tensor:
    """[P] float64, the larger the smaller Omega is; the middle of the range where all are equal under `linear`."""
    if not len(omega):
        return omega
    low, high = settings.w_min, settings.w_max
    if settings.map == "exponential":
        scale = max(float(omega.max()), settings.floor)
        return (math.log(low) / (scale or 1.0) * omega).exp().clamp(low, 1.0)
    span = omega.max() - omega.min()
    if span == 0:
        return torch.full_like(omega, (low + high) / 2)
    return (high - (omega - omega.min()) * ((high - low) / span)).clamp(low, high)


@dataclass(frozen=True, slots=True)
class Steer:
    """The weights as a gate."""

    settings: Settings
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Of the step's tokens."""
        omega = entropy_change(tokens.logprob, tokens.entropy, tokens.old_logprob, tokens.advantage)
        weight = weights(omega, self.settings)
        some = len(omega) > 0
        log = {
            "steer_weight": float(weight.mean()) if some else 1.0,
            "steer_omega": float(omega.max()) if some else 0.0,
        }
        return Gated(weight=weight, log=log)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The gate; nothing where all weights are 1.

    Raises:
        ConfigError: the range is empty.
    """
    if settings.map == "linear" and settings.w_max < settings.w_min:
        raise ConfigError(f"algorithm.settings.steer.w_max: at least w_min ({settings.w_min}), not {settings.w_max}")
    if settings.w_min == 1 and (settings.map == "exponential" or settings.w_max == 1):
        return Parts()
    return Parts(gates=(Steer(settings),))


PLUGIN = Plugin(
    name="steer",
    summary="entropy falls, or jumps, by few tokens: those that would change it most weigh less",
    source="STEER 2025, arXiv 2510.10150",
    settings=Settings,
    build=build,
    neutral={"w_min": 1.0, "w_max": 1.0},
)
