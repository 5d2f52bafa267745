"""Lp-Reg: rare tokens that may yet be worth exploring are not driven out by negative advantages (arXiv 2510.03222).

    proxy = pi_old without the tokens below kappa max pi_old, renormalised        what a min-p sampler would play
    chosen: A < 0, among the lowest rho of such tokens by log pi, and log proxy > log pi, so above the floor
    loss  = -A pi / pi_old + beta (e^d - d - 1),  d = log proxy - log pi          on chosen tokens, unclipped
    loss  = policy loss                                                           on all others

The choice is made over the policy tokens of the optimiser step. What is below the floor counts as noise, and may go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from palaestra.config import Config, Fraction, NonNegativeFloat, Recipe
from palaestra.training.aggregate import Mode
from palaestra.training.batch import Batch
from palaestra.training.kl import kl_estimate
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, BoundTerm, Gated, Moment, Need, Parts, Statistic, Tokens, Values
from palaestra.training.terms import constant_of

CHOSEN, PROXY = "lp_reg_chosen", "lp_reg_proxy"


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the paper's."""

    kappa: Fraction = 0.02
    """Tokens less likely than this part of the likeliest one are below the floor; 0 for no floor."""
    rho: Fraction = 0.01
    """Part of the tokens with a negative advantage that may be chosen, at least one; 0 switches all off."""
    beta: NonNegativeFloat = 1.0
    """Weight of the divergence from the proxy."""
    skip_single: bool = False
    """Choose none where `rho` gives one token or less, as the released code does."""


def min_p_proxy(logits: Tensor, taken: Tensor, kappa: float) -> Tensor:
    """[c]: log-prob of the tokens taken [c] under `logits` [c, V] without what is less likely than `kappa` times the
    likeliest; minus infinity if that is the token itself."""
    logprob = logits.log_softmax(-1)
    floor = logprob.amax(-1) + (math.log(kappa) if kappa else -math.inf)
    left = logprob.masked_fill(logprob < floor[:, None], -math.inf).logsumexp(-1)
    own = logprob.gather(1, taken[:, None])[:, 0]
    return torch.where(own >= floor, own - left, -math.inf)


@dataclass(frozen=True, slots=True)
class RareTokens:
    """Chooses tokens, and takes the clip from them."""

    rho: float
    skip_single: bool = False
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Of the step's tokens; those that are as rare as the last one chosen are chosen too."""
        logprob, proxy = tokens.logprob.detach(), tokens.old_extra[PROXY].detach()
        negative = tokens.advantage.detach() < 0
        size = max(1, int(self.rho * int(negative.sum())))
        chosen = torch.zeros_like(negative)
        if bool(negative.any()) and not (self.skip_single and size == 1):
            rare = logprob <= logprob[negative].kthvalue(size).values
            chosen = negative & rare & (proxy > logprob)
        fraction = float(chosen.double().mean()) if len(chosen) else 0.0
        return Gated(unclipped=chosen, marks={CHOSEN: chosen}, log={"lp_reg_fraction": fraction})


@dataclass(frozen=True, slots=True)
class ProxyDivergence:
    """`beta (e^d - d - 1)` on the chosen tokens, averaged as the policy loss is."""

    beta: float
    aggregation: Mode
    constant: float | None = None
    requires: frozenset[Need] = NOTHING
    needs_all: bool = False

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """The same at every moment."""
        return BoundTerm("lp_reg", self.beta, self.aggregation, self.value, self.constant) if self.beta else None

    def value(self, tokens: Tokens) -> Values:
        """Zero on all other tokens, and without gradient there."""
        chosen = tokens.marks[CHOSEN]
        target = torch.where(chosen, tokens.old_extra[PROXY].detach(), tokens.logprob.detach())
        return Values(torch.where(chosen, kl_estimate(tokens.logprob, target.to(tokens.logprob.dtype), "k3"), 0.0))


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Statistic, gate and term; nothing with `rho` 0."""
    if settings.rho == 0:
        return Parts()
    mode = recipe.algorithm.aggregation
    return Parts(
        statistics=(Statistic(PROXY, partial(min_p_proxy, kappa=settings.kappa)),),
        gates=(RareTokens(settings.rho, settings.skip_single),),
        terms=(ProxyDivergence(settings.beta, mode, constant_of(recipe, mode)),),
    )


PLUGIN = Plugin(
    name="lp_reg",
    summary="negative advantages drive out rare tokens that are sparks of exploration, not noise",
    source="Huang et al. 2025, arXiv 2510.03222",
    settings=Settings,
    build=build,
    neutral={"rho": 0.0},
)
