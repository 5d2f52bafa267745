"""Clip_B: failures do not drive out unlikely tokens by which entropy would fall most (arXiv 2602.03392).

    S = p (H + log p)            to first order, raising a token's logit changes the entropy by a negative multiple of S
    z = (S - mean S) / std S     over the policy tokens of the optimiser step
    loss = 0   where A < 0 and z < -mu

`p` and `H` are of the policy before the step. A likely token (`-log p < H`) has `S > 0`, an unlikely one `S < 0`:
making it less likely still, as a negative advantage does, lowers entropy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeOrInfinite, Recipe
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, Gated, Moment, Need, Parts, Tokens


class Settings(Config, frozen=True, kw_only=True):
    """Default: the paper's."""

    mu: NonNegativeOrInfinite = 2.5
    """Standard deviations below the mean from which a failure's token is dropped; `.inf` drops none."""


def discriminator(logprob: Tensor, entropy: Tensor) -> Tensor:
    """S, [P] float64; 0 for a token without probability. Its mean under the policy is 0."""
    log_p, h = logprob.detach().double(), entropy.detach().double()
    return torch.where(log_p > -math.inf, log_p.exp() * (h + log_p), 0.0)


def standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 (divisor n); all 0 where values are equal up to rounding."""
    if not len(values):
        return values
    mean, std = values.mean(), values.std(correction=0)
    return (values - mean) / std if std > 1e-12 else torch.zeros_like(values)


@dataclass(frozen=True, slots=True)
class ClipB:
    """Drops tokens."""

    mu: float
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Weights 0 and 1."""
        z = standardised(discriminator(tokens.logprob, tokens.entropy))
        dropped = (tokens.advantage.detach() < 0) & (z < -self.mu)
        fraction = float(dropped.double().mean()) if len(dropped) else 0.0
        return Gated(weight=(~dropped).double(), log={"clip_b_fraction": fraction})


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The gate; nothing with `mu` infinite."""
    return Parts() if math.isinf(settings.mu) else Parts(gates=(ClipB(settings.mu),))


PLUGIN = Plugin(
    name="clip_b",
    summary="failures push unlikely tokens further down, which takes entropy away where the policy was undecided",
    source="arXiv 2602.03392; Trinity-RFT",
    settings=Settings,
    build=build,
    neutral={"mu": math.inf},
)
