"""How AEPO (Dong et al., arXiv 2510.14545) shares a budget of rollouts out: how many begin at the prompt, and after
which tool results an episode branches. Pure functions of entropies measured while sampling; `tree` plays by them.

A *segment* is what the model says between two tool results. `m` of a task's `k` rollouts begin at the prompt, and the
rest are branches: more of them where the tools' answers leave the model less certain than the question did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Decision = Literal["bernoulli", "paper", "code"]
Rounding = Literal["code", "nearest"]


def measured_entropy(entropies: Sequence[float], positions: int = 20) -> float:
    """Equation (1) where the engine reports the entropy of the whole distribution: the mean over the first tokens, in
    nats; 0 for an empty segment."""
    first = entropies[:positions]
    return math.fsum(first) / len(first) if first else 0.0


def segment_entropy(topk_logprobs: Sequence[Sequence[float]], *, positions: int = 20, tail: bool = False) -> float:
    """Equation (1): mean over the first tokens of `-sum p ln p` of the likeliest continuations, in nats.

    A lower bound of the true entropy: for steering a rollout, never for a loss. 0 for an empty segment.

    Args:
        topk_logprobs: of each token, the log-probs of its likeliest alternatives.
        positions: how many tokens count; a shorter segment has those that it has.
        tail: count the mass that is missing as one more symbol; still a lower bound.
    """
    entropies = [token_entropy(logprobs, tail=tail) for logprobs in topk_logprobs[:positions]]
    return math.fsum(entropies) / len(entropies) if entropies else 0.0


def token_entropy(topk_logprobs: Sequence[float], *, tail: bool = False) -> float:
    """`-sum p ln p` over some of the vocabulary, and `-q ln q` for the rest `q` with `tail`."""
    entropy = -math.fsum(math.exp(lp) * lp for lp in topk_logprobs if lp > -math.inf)
    missing = 1 - math.fsum(map(math.exp, topk_logprobs))
    return entropy - missing * math.log(missing) if tail and missing > 0 else entropy


def code_segment_entropy(topk_logprobs: Sequence[Sequence[float]], vocabulary: int, *, positions: int = 20) -> float:
    """Equation (1c), the released code's: the sum over the first tokens, divided by `ln vocabulary`."""
    return math.fsum(map(token_entropy, topk_logprobs[:positions])) / math.log(vocabulary)


@dataclass(frozen=True, slots=True)
class Split:
    """How a task's rollouts are split."""

    exact: float
    """(4): `k sigmoid(beta (H_root - mean H_tool))`."""
    begin: int
    """m of (5): those that begin at the prompt, 1 to k."""
    branch: int
    """The others."""


def split_budget(
    k: int,
    root: float,
    tools: Sequence[float],
    *,
    beta: float = 0.5,
    rounding: Rounding = "code",
) -> Split:
    """Equations (2), (4) and (5), from one finished episode.

    Args:
        k: rollouts of the task, at least 1.
        root: entropy of the first segment.
        tools: entropies of the segments that follow tool results; without any, half of the budget branches.
        beta: sensitivity; 0 splits in halves.
        rounding: `code`: down, plus 1. `nearest`: half up.
    """
    mean = math.fsum(tools) / len(tools) if tools else root
    exact = k * _sigmoid(beta * (root - mean))
    begin = math.floor(exact) + 1 if rounding == "code" else math.floor(exact + 0.5)
    begin = min(max(begin, 1), k)
    return Split(exact, begin, k - begin)


@dataclass(frozen=True, slots=True)
class BranchRule:
    """Whether an episode branches after a tool result. Defaults: the released code's constants."""

    alpha: float = 0.5
    """Probability where entropy has not changed."""
    gamma: float = 0.2
    """Weight of the change of entropy."""
    rho: float = 0.05
    """Penalty of each branch in a row: none is made after `1 / rho`."""
    threshold: float = 0.5
    """tau of the `paper` decision."""
    decision: Decision = "bernoulli"
    """`bernoulli`: with probability (8). `paper`: where (8) is above the threshold, (9). `code`: (9c), whose random
    score is what the penalty scales, so that branching ends at half as many in a row."""

    def penalty(self, consecutive: int) -> float:
        """(7): `min(1, rho l)` after `l` branches in a row."""
        return min(1.0, self.rho * consecutive)

    def probability(self, change: float, consecutive: int) -> float:
        """(8), not clipped; `change` is `H_t - H_init` of the episode in nats per token."""
        return (self.alpha + self.gamma * change) * (1 - self.penalty(consecutive))

    def code_score(self, change: float, consecutive: int, uniform: float) -> float:
        """Score of (9c)."""
        return min(max((uniform + self.gamma * change) * (1 - self.penalty(consecutive)), 0.0), 1.0)

    def code_probability(self, change: float, consecutive: int) -> float:
        """How often (9c) branches over uniform draws."""
        kept = 1 - self.penalty(consecutive)
        return min(max(1 - 0.5 / kept + self.gamma * change, 0.0), 1.0) if kept > 0 else 0.0

    def branches(self, change: float, consecutive: int, uniform: float) -> bool:
        """The decision, by a draw `uniform` from [0, 1)."""
        match self.decision:
            case "bernoulli":
                return uniform < min(max(self.probability(change, consecutive), 0.0), 1.0)
            case "paper":
                return self.probability(change, consecutive) > self.threshold
            case "code":
                return self.code_score(change, consecutive, uniform) >= 0.5


def next_consecutive(consecutive: int, branched: bool) -> int:
    """l of a path after a tool result: one more if it branched there, else 0. A child begins with its parent's."""
    return consecutive + 1 if branched else 0


def code_next_consecutive(consecutive: Sequence[int], branched: Sequence[bool]) -> list[int]:
    """The released code's counters, one per *task* of the batch: left alone in rounds in which no task branched."""
    if not any(branched):
        return list(consecutive)
    return [next_consecutive(count, flag) for count, flag in zip(consecutive, branched, strict=True)]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
