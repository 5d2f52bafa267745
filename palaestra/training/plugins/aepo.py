"""AEPO, agentic entropy-balanced policy optimisation (Dong et al., arXiv 2510.14545): its update half, and the switch
of its rollout half.

    z_ij = (H_ij - mean H) / std H        over all policy tokens of the iteration, old policy's entropies       (12)
    A_ij = A_i (1 + a z_ij)               uncertain tokens weigh more, in both directions                       (13)

and a clip that keeps a bounded gradient on tokens whose probability has risen, `policy_loss: entropy_balanced`,
equations (14) to (18). Either works alone: `advantage_weight` 0 switches the first off, `policy_loss: clip` the second.
Rollouts branch with `branching: true`, or with the plug-in `branching` beside any other algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat, Recipe, convert
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.plugins import branching
from palaestra.training.seams import Moment, Need, Parts, Shaped, Tokens

TINY = 1e-6
"""Below this a standard deviation is rounding."""


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the constants of the released code."""

    advantage_weight: NonNegativeFloat = 0.2
    """a of (13); 0 leaves advantages as they are. Hard-coded in the released code."""
    clamp: bool = False
    """Keep the factor of (13) from becoming negative, as it does `1 / a` standard deviations below the mean."""
    statistics: Literal["batch", "code"] = "batch"
    """Of (12): over the iteration, of the policy before the update; or as in the released code over each micro-batch,
    of the present policy, so that `learner.micro_batch_tokens` changes the update."""
    branching: bool = False
    """AEPO's rollout half: the plug-in `branching`, with what is under `algorithm.settings.branching`."""


class Standardised(NamedTuple):
    """A column with mean 0 and standard deviation 1."""

    value: Tensor
    """[B, T] float64, 0 where masked out."""
    mean: float
    std: float


def standardise(x: Tensor, mask: Tensor) -> Standardised:
    """(12): over the masked-in tokens, divisor n - 1; all 0 where they are fewer than two, or equal up to rounding."""
    values = x.detach()[mask].double()
    if len(values) < 2:
        return Standardised(x.new_zeros(x.shape, dtype=torch.float64), float(values.sum()), 0.0)
    mean, std = values.mean(), values.std()
    scaled = torch.zeros_like(values) if std < TINY else (values - mean) / std
    full = x.new_zeros(x.shape, dtype=torch.float64).masked_scatter(mask, scaled)
    return Standardised(full, float(mean), float(std))


def entropy_factor(entropy: Tensor, mask: Tensor, weight: float, *, clamp: bool = False) -> Tensor:
    """The factor of (13), [B, T] float64, 1 where masked out; never carries gradient."""
    factor = 1 + weight * standardise(entropy, mask).value
    return factor.clamp(min=0) if clamp else factor


@dataclass(frozen=True, slots=True)
class EntropyAwareAdvantage:
    """(12) and (13) as a shaper; logs how many tokens changed their sign."""

    weight: float = 0.2
    clamp: bool = False
    requires: frozenset[Need] = frozenset({"old_entropy", "scored"})

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """Advantages times their factors."""
        assert batch.advantage is not None
        assert batch.old_entropy is not None
        factor = entropy_factor(batch.old_entropy, batch.trained, self.weight, clamp=self.clamp)
        flipped = int((factor < 0).sum()) / max(1, int(batch.trained.sum()))
        return Shaped(batch.advantage.double() * factor, {"aepo_flipped": flipped})


@dataclass(frozen=True, slots=True)
class CodeAdvantage:
    """(12) and (13) as in the released code: in every forward pass, from its own entropies."""

    weight: float = 0.2
    clamp: bool = False

    def on_tokens(self, tokens: Tokens) -> Tokens:
        """Advantages times their factors."""
        every = torch.ones_like(tokens.entropy, dtype=torch.bool)
        factor = entropy_factor(tokens.entropy, every, self.weight, clamp=self.clamp)
        return replace(tokens, advantage=(tokens.advantage * factor).to(tokens.advantage.dtype))


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The entropy-aware advantage, and rollouts that branch."""
    given = convert(recipe.algorithm.settings.get("branching", {}), branching.Settings)
    parts = branching.build(given, recipe) if settings.branching else Parts()
    if not settings.advantage_weight:
        return parts
    if settings.statistics == "code":
        return replace(parts, token_shapers=(CodeAdvantage(settings.advantage_weight, settings.clamp),))
    return replace(parts, shapers=(EntropyAwareAdvantage(settings.advantage_weight, settings.clamp),))


PLUGIN = Plugin(
    name="aepo",
    summary="the update treats tokens alike, whether the policy was sure of them or exploring",
    source="Dong et al. 2025, arXiv 2510.14545",
    settings=Settings,
    build=build,
    neutral={"advantage_weight": 0.0},
)
