"""Clip-Cov (Cui et al. 2025, arXiv 2505.22617): the tokens that would make entropy collapse sit out, some at a time.

    cov_j = (A_j - mean A) (lp_j - mean lp)               over all policy tokens of the optimiser step
    eligible = not clipped by the ratio, and low < cov < high
    of these, max(1, int(rate * N)) of N tokens at random: loss_j <- 0, while denominators count them

The change of entropy in a step is minus the covariance of advantage and log-prob (times the rate of learning), and few
tokens make up most of it: those that the policy was sure of already and that paid off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.config import Config, Fraction, NonNegativeFloat, NonNegativeOrInfinite, Recipe
from palaestra.training.batch import Batch
from palaestra.training.covariance import between, covariance, pick, pick_generator
from palaestra.training.plugin import Plugin
from palaestra.training.policy_loss import POLICY_LOSSES, Bounds
from palaestra.training.scope import Scope, budget_of, places
from palaestra.training.seams import NOTHING, Gated, Moment, Need, Parts, Tokens


class Settings(Config, frozen=True, kw_only=True):
    """Which tokens sit out."""

    rate: Fraction = 2e-4
    """Part of the tokens that may be picked; one always may, unless this is 0, which switches it off."""
    low: NonNegativeFloat = 1.0
    """Covariances above this are eligible. They grow with the rewards: 1 and 5 go with advantages of order 1, and
    SPEAR's 2 and 60 with a success worth 10."""
    high: NonNegativeOrInfinite = 5.0
    """And below this."""
    scope: Scope = "step"
    """Statistics over the optimiser step, or over each micro-batch as in the released code, so that
    `learner.micro_batch_tokens` changes the update."""


@dataclass(frozen=True, slots=True)
class ClipCov:
    """The gate."""

    rate: float
    low: float
    high: float
    bounds: Bounds
    policy_loss: str = "clip"
    """Whose clip makes a token ineligible."""
    budget: int | None = None
    """Tokens of a micro-batch where statistics are of each; see `places`."""
    purpose: str = "clip_cov"
    """Of the draws."""
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Weight 0 for the picked; logs how many there were and how many could have been."""
        clipped = POLICY_LOSSES[self.policy_loss].plugin(tokens, self.bounds).clipped
        weight = torch.ones(len(clipped), dtype=torch.float64, device=clipped.device)
        count = 0
        for part, chosen in enumerate(places(tokens, batch, self.budget)):
            eligible = self._eligible(tokens, clipped, chosen)
            count += int(eligible.sum())
            generator = pick_generator(moment.seed, moment.iteration, moment.step, part, purpose=self.purpose)
            weight[chosen[pick(eligible, len(chosen), self.rate, generator)]] = 0
        return Gated(weight, log={"clip_cov_eligible": count, "clip_cov_picked": float((weight == 0).sum())})

    def _eligible(self, tokens: Tokens, clipped: Tensor, chosen: Tensor) -> Tensor:
        advantage, logprob, every = tokens.advantage[chosen], tokens.logprob[chosen], torch.ones_like(chosen)
        return between(covariance(advantage, logprob, every).value, clipped[chosen], self.low, self.high)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The gate, with the clip of the recipe's policy loss."""
    if not settings.rate:
        return Parts()
    config = recipe.algorithm
    bounds = Bounds(config.clip_low, config.clip_high, config.dual_clip)
    limits = settings.rate, settings.low, settings.high
    return Parts(gates=(ClipCov(*limits, bounds, config.policy_loss, budget_of(recipe, settings.scope)),))


PLUGIN = Plugin(
    name="clip_cov",
    summary="few tokens, sure already and paid off, make entropy collapse: some of them sit out",
    source="Cui et al. 2025, arXiv 2505.22617",
    settings=Settings,
    build=build,
    neutral={"rate": 0.0},
)
