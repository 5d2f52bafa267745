"""KL-Cov (Cui et al. 2025, arXiv 2505.22617): the tokens that would make entropy collapse are held to where they were.

    cov_j = (A_j - mean A) (lp_j - mean lp)               over all policy tokens of the optimiser step
    loss_j = -A_j r_j                                     no clip, on any token
           + coeff * |lp_j - old_j|                       on the max(1, floor(rate * N)) tokens of largest covariance

In the first step after a rollout `lp = old`, and the second part is 0 in value and gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palaestra.config import Config, Fraction, NonNegativeFloat, Recipe
from palaestra.training.aggregate import Mode
from palaestra.training.batch import Batch
from palaestra.training.covariance import covariance, drift, largest
from palaestra.training.plugin import Plugin
from palaestra.training.scope import Scope, budget_of, places
from palaestra.training.seams import NOTHING, BoundTerm, Gated, Moment, Need, Parts, Tokens, Values
from palaestra.training.terms import constant_of

MARK = "kl_cov"


class Settings(Config, frozen=True, kw_only=True):
    """Which tokens are held, and how firmly."""

    rate: Fraction = 0.002
    """Part of the tokens that are held, at least one; 0.002 for 7B, 0.0002 for 32B. 0 switches all of it off, the clip
    back on."""
    coeff: NonNegativeFloat = 1.0
    """Of the penalty; 1 in the scripts, verl's own default is 0.1. At 0 the policy gradient without clip is left."""
    scope: Scope = "step"
    """Statistics over the optimiser step, or over each micro-batch as in the released code, so that
    `learner.micro_batch_tokens` changes the update."""


@dataclass(frozen=True, slots=True)
class KLCov:
    """Marks the tokens to hold, and takes the clip from all."""

    rate: float
    budget: int | None = None
    """Tokens of a micro-batch where statistics are of each; see `places`."""
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Logs how many are held."""
        held = torch.zeros_like(tokens.logprob, dtype=torch.bool)
        for chosen in places(tokens, batch, self.budget):
            every = torch.ones_like(chosen)
            held[chosen] = largest(covariance(tokens.advantage[chosen], tokens.logprob[chosen], every).value, self.rate)
        return Gated(unclipped=torch.ones_like(held), marks={MARK: held}, log={"kl_cov_held": float(held.sum())})


@dataclass(frozen=True, slots=True)
class Hold:
    """`coeff * |lp - old|` of the marked tokens; their gradient does not wait for an advantage."""

    coeff: float
    aggregation: Mode
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"old_logprob"})
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """The same at every moment."""
        return BoundTerm("kl_cov", self.coeff, self.aggregation, self.value, self.constant) if self.coeff else None

    def value(self, tokens: Tokens) -> Values:
        """0 where not marked."""
        return Values(torch.where(tokens.marks[MARK], drift(tokens.logprob, tokens.old_logprob), 0.0))


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The gate and its term."""
    if not settings.rate:
        return Parts()
    aggregation = recipe.algorithm.aggregation
    hold = Hold(settings.coeff, aggregation, constant_of(recipe, aggregation))
    terms = (hold,) if settings.coeff else ()
    return Parts(gates=(KLCov(settings.rate, budget_of(recipe, settings.scope)),), terms=terms)


PLUGIN = Plugin(
    name="kl_cov",
    summary="few tokens, sure already and paid off, make entropy collapse: they are held to where they were",
    source="Cui et al. 2025, arXiv 2505.22617",
    settings=Settings,
    build=build,
    neutral={"rate": 0.0},
)
