"""SPEAR's loss of replayed episodes: the clipped surrogate against the policy that played them, and who sits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palaestra.training.aggregate import Mode
from palaestra.training.batch import Batch
from palaestra.training.imitation import Kind
from palaestra.training.plugins.clip_cov import ClipCov
from palaestra.training.plugins.kl_cov import Hold, KLCov
from palaestra.training.policy_loss import Bounds, PolicyLoss, clip
from palaestra.training.seams import NOTHING, BoundTerm, Extra, Gate, Gated, Moment, Need, Tokens, Values
from palaestra.training.stored import Stored
from palaestra.training.terms import EntropyBonus


@dataclass(frozen=True, slots=True)
class Watch:
    """A gate that only looks: how far the replayed tokens are from the policy that played them."""

    constants: dict[str, float]
    """Of the iteration, logged with the rest."""
    bounds: Bounds
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Logs the part of the tokens that the ratio clips, before the step, and the mean of `lp_played - lp`."""
        count = max(1, len(tokens.logprob))
        clipped = float(clip(tokens, self.bounds).clipped.sum()) / count
        moved = float((tokens.old_logprob - tokens.logprob).double().sum()) / count
        return Gated(log={**self.constants, "clip_fraction": clipped, "approx_kl": moved})


@dataclass(frozen=True, slots=True)
class ReplayedLoss:
    """Terms and gates of a replayed batch."""

    kind: Kind
    clip: ClipCov
    hold: KLCov
    kl_coeff: float
    entropy_coeff: float
    aggregation: Mode
    constant: float | None = None

    def __call__(self, batch: Batch, weight: float, log: dict[str, float], moment: Moment) -> Extra:
        """What an optimiser step adds to its gradient.

        Args:
            batch: as `palaestra.training.stored.put` gives it; may be empty.
            weight: of the loss; above 0 unless the batch is empty.
            log: this iteration's constants.
            moment: of training.
        """
        bounds = self.clip.bounds
        chosen: dict[Kind, tuple[Gate, ...]] = {"clip_cov": (self.clip,), "kl_cov": (self.hold,), "plain": ()}
        gates = (Watch(log, bounds), *chosen[self.kind])
        surrogate = PolicyLoss("clip", bounds, self.aggregation, self.constant)
        terms: list[BoundTerm | None] = [surrogate.bind(moment, batch)]
        if self.kind == "kl_cov":
            terms.append(Hold(self.kl_coeff, self.aggregation, self.constant).bind(moment, batch))
        terms.append(EntropyBonus(self.entropy_coeff, self.aggregation, self.constant).bind(moment, batch))
        return Extra("sil", batch, tuple(_scaled(term, weight) for term in terms if term is not None), gates)


def _scaled(term: BoundTerm, weight: float) -> BoundTerm:
    """With a weight, and without diagnostics, which an iteration without replay would not have."""
    return replace(term, coefficient=weight * term.coefficient, value=lambda tokens: Values(term.value(tokens).value))


def ages(stored: Sequence[Stored], now: int) -> float:
    """Mean age of episodes in iterations, 0 for none."""
    return sum(now - each.step for each in stored) / max(1, len(stored))
