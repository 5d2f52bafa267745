"""SIREN: entropy of the tokens and words that matter is held where it was at the start (arXiv 2509.25133).

    h    = entropy of the top-p part of a token's distribution, renormalised
    S_i  = the tokens of trajectory i with h above its q-quantile
    Hbar = mean over trajectories of (mean over S_i of h)
    loss = policy loss + c (Hbar - anchor)^2

`Hbar` is of an optimiser step, so the penalty's gradient is `2c (Hbar - anchor)` times that of a weighted sum of `h`,
with weights that a gate computes before the step from all of its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec

from palaestra.config import Config, NonNegativeFloat, Positive, Recipe
from palaestra.training.batch import Batch
from palaestra.training.first import First
from palaestra.training.nucleus import nucleus_entropy, selection
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, BoundTerm, Gated, Moment, Need, Parts, Statistic, Tokens, Values

ENTROPY, PULL, LEVEL = "siren_entropy", "siren_pull", "siren_level"


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the paper's."""

    coeff: NonNegativeFloat = 0.005
    """c; 0 switches all off."""
    top_p: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.8
    """Probability that the nucleus holds; 1 takes every token."""
    crossing: bool = True
    """Whether the token with which the nucleus reaches `top_p` belongs to it; the released code leaves it out."""
    most: Positive = 10_000
    """Tokens that a nucleus has at most; no bound at `top_p` 1."""
    quantile: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.8
    """q, within each trajectory; 0 takes all tokens."""
    anchor: NonNegativeFloat | None = None
    """In nats; by default `Hbar` of the run's first iteration, before its first update."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """Compares `Hbar` of a step with the anchor, and says how much each token has to do with it."""

    settings: Settings
    first: First
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Marks for the penalty; the first iteration's anchor is of its whole batch."""
        assert tokens.row is not None
        anchor = self.settings.anchor
        if anchor is None:
            anchor = self.first.of(None if self.first.value is not None else self._start(batch)) or 0.0
        entropy = tokens.extra[ENTROPY].detach().double()
        weight = selection(entropy, batch.traj.to(tokens.row.device)[tokens.row], self.settings.quantile)
        mean = float((weight * entropy).sum())
        gap = mean - anchor
        log = {"siren_entropy": mean, "siren_anchor": anchor}
        return Gated(marks={PULL: 2 * gap * weight, LEVEL: gap**2 * weight}, log=log)

    def _start(self, batch: Batch) -> float | None:
        entropy = batch.extra[ENTROPY][batch.trained].double()
        weight = selection(entropy, batch.traj[batch.trained.nonzero()[:, 0]], self.settings.quantile)
        return float((weight * entropy).sum()) if bool(weight.any()) else None


@dataclass(frozen=True, slots=True)
class AnchorPenalty:
    """`c (Hbar - anchor)^2`, exact in value and gradient, as a sum over tokens."""

    coeff: float
    requires: frozenset[Need] = NOTHING
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm:
        """The same at every moment."""
        return BoundTerm("siren", self.coeff, "sum", self.value)

    def value(self, tokens: Tokens) -> Values:
        """A token's share."""
        entropy = tokens.extra[ENTROPY]
        return Values(tokens.marks[LEVEL] + tokens.marks[PULL] * (entropy - entropy.detach()))


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Statistic, gate, term and the anchor's memory; nothing with `coeff` 0."""
    if settings.coeff == 0:
        return Parts()
    function = partial(nucleus_entropy, top_p=settings.top_p, most=settings.most, crossing=settings.crossing)
    first = First()
    return Parts(
        statistics=(Statistic(ENTROPY, function, gradient=True),),
        gates=(Anchored(settings, first),),
        terms=(AnchorPenalty(settings.coeff),),
        trackers={"siren": first},
    )


PLUGIN = Plugin(
    name="siren",
    summary="entropy bonuses feed the vocabulary's tail and tokens with nothing to decide, and entropy runs away",
    source="SIREN 2025, arXiv 2509.25133",
    settings=Settings,
    build=build,
    neutral={"coeff": 0.0},
)
