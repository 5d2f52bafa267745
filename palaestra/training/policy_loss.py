"""The policy loss, and the surrogates that it can be, by name.

A surrogate turns log-prob, old log-prob and advantage of each token into its loss; what all have in common (the
correction for the engine, what is logged) is the term's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.training.aggregate import Mode
from palaestra.training.batch import Batch
from palaestra.training.numbering import number
from palaestra.training.registry import Registered
from palaestra.training.seams import BoundTerm, Moment, Need, Tokens, Values
from palaestra.training.surrogate import Surrogate, balanced_surrogate, span_surrogate, surrogate


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of the ratio."""

    clip_low: float = 0.2
    """Below `1 - clip_low` a negative advantage has no gradient."""
    clip_high: float = 0.2
    """Above `1 + clip_high` a positive advantage has none."""
    dual_clip: float = 3.0
    """Above it a negative advantage has none."""


UNBOUNDED = Bounds(1.0, math.inf, math.inf)
"""No clip."""


def clip(tokens: Tokens, bounds: Bounds) -> Surrogate:
    """PPO's: a ratio a token."""
    columns = tokens.logprob, tokens.old_logprob, tokens.advantage, _every(tokens)
    return surrogate(*columns, clip_low=bounds.clip_low, clip_high=bounds.clip_high, dual_clip=bounds.dual_clip)


def gspo(tokens: Tokens, bounds: Bounds) -> Surrogate:
    """A ratio a row: a whole episode with full history, one context of it where the context was cut."""
    assert tokens.row is not None
    return _by_span(tokens, tokens.row, bounds)


def span_ratio(tokens: Tokens, bounds: Bounds) -> Surrogate:
    """A ratio a turn. A turn's tokens are in one row, so the layout of rows makes no difference."""
    assert tokens.row is not None
    return _by_span(tokens, number(torch.stack((tokens.row, tokens.step_id), 1)).number, bounds)


def entropy_balanced(tokens: Tokens, bounds: Bounds) -> Surrogate:
    """AEPO's: the value of `clip`, and a bounded gradient where `clip` has none for a positive advantage."""
    columns = tokens.logprob, tokens.old_logprob, tokens.advantage, _every(tokens)
    return balanced_surrogate(
        *columns, clip_low=bounds.clip_low, clip_high=bounds.clip_high, dual_clip=bounds.dual_clip
    )


POLICY_LOSSES: dict[str, Registered[Callable[[Tokens, Bounds], Surrogate]]] = {
    "clip": Registered(
        clip,
        "a step in a direction that has paid off must not go too far",
        "Schulman et al. 2017, arXiv 1707.06347; dual clip: Ye et al. 2019, arXiv 1912.09729",
    ),
    "gspo": Registered(
        gspo,
        "token ratios are noise where the reward is one number for the whole sequence",
        "Zheng et al. 2025, arXiv 2507.18071",
    ),
    "span_ratio": Registered(
        span_ratio,
        "one ratio over an episode of many turns averages very different regimes; a turn is the natural span",
        "after Zheng et al. 2025, arXiv 2507.18071",
    ),
    "entropy_balanced": Registered(
        entropy_balanced,
        "clipping removes the gradient of exactly the tokens that explore",
        "Dong et al. 2025, arXiv 2510.14545",
    ),
}
"""Add an entry to make a surrogate available as `algorithm.policy_loss`."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A surrogate, with what gates say of its tokens."""

    kind: str = "clip"
    """An entry of `POLICY_LOSSES`."""
    bounds: Bounds = Bounds()
    aggregation: Mode = "seq-mean-token-mean"
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"old_logprob"})
    needs_all: bool = False

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm:
        """The same at every moment."""
        return BoundTerm("surrogate", 1.0, self.aggregation, self.value, self.constant)

    def value(self, tokens: Tokens) -> Values:
        """Per-token loss; logs how much was clipped and how far the policy has moved."""
        result = POLICY_LOSSES[self.kind].plugin(tokens, self.bounds)
        loss, clipped, dual = result.loss, result.clipped, result.dual_clipped
        if tokens.unclipped is not None:
            free = tokens.unclipped.bool()
            loss = torch.where(free, POLICY_LOSSES[self.kind].plugin(tokens, UNBOUNDED).loss, loss)
            clipped, dual = clipped & ~free, dual & ~free
        if tokens.weight is not None:
            loss = torch.where(tokens.weight == 0, 0.0, loss * tokens.weight.to(loss.dtype))
        diagnostics = {
            "clip_fraction": clipped,
            "dual_clip_fraction": dual,
            "approx_kl": tokens.old_logprob - tokens.logprob.detach(),
            "rollout_kl": tokens.rollout_logprob - tokens.old_logprob,
        }
        if result.preserved is not None:
            diagnostics["preserved_fraction"] = result.preserved
        return Values(loss, diagnostics)


def _every(tokens: Tokens) -> Tensor:
    return torch.ones_like(tokens.advantage, dtype=torch.bool)


def _by_span(tokens: Tokens, span: Tensor, bounds: Bounds) -> Surrogate:
    columns = tokens.logprob, tokens.old_logprob, tokens.advantage, _every(tokens), span
    return span_surrogate(*columns, clip_low=bounds.clip_low, clip_high=bounds.clip_high, dual_clip=bounds.dual_clip)
