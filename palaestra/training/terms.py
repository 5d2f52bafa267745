"""The terms that every recipe can have beside the policy loss."""

from __future__ import annotations

from dataclasses import dataclass

from palaestra.config import Recipe
from palaestra.training.aggregate import CONSTANT_MODES, Mode
from palaestra.training.batch import Batch
from palaestra.training.kl import Kind, kl_estimate
from palaestra.training.seams import BoundTerm, Moment, Need, Tokens, Values


@dataclass(frozen=True, slots=True)
class EntropyBonus:
    """`- coeff * entropy`: rewards being undecided."""

    coeff: float
    aggregation: Mode = "token-mean"
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"entropy_grad"})
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """The same at every moment."""
        if self.coeff == 0:
            return None
        value = lambda tokens: Values(tokens.entropy)  # noqa: E731
        return BoundTerm("entropy_bonus", -self.coeff, self.aggregation, value, self.constant)


@dataclass(frozen=True, slots=True)
class KLPenalty:
    """`coeff * KL(policy, reference)` by a per-token estimate."""

    coeff: float
    kind: Kind = "k3"
    aggregation: Mode = "token-mean"
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"ref_logprob"})
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """The same at every moment."""
        return BoundTerm("kl", self.coeff, self.aggregation, self.value, self.constant) if self.coeff else None

    def value(self, tokens: Tokens) -> Values:
        """The estimate."""
        assert tokens.ref_logprob is not None
        return Values(kl_estimate(tokens.logprob, tokens.ref_logprob, self.kind))


def constant_of(recipe: Recipe, mode: Mode) -> float | None:
    """The divisor of aggregation `mode`, in tokens: by default the most that an episode can sample; `None` for the
    modes without one."""
    longest = recipe.tasks.max_turns * recipe.agent.max_tokens
    return (recipe.algorithm.aggregation_constant or longest) if mode in CONSTANT_MODES else None
