"""How good an answer is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from palaestra.envs.answers import normalised, token_f1, tool_answer_reward

TOOLS = ("search", "read")
"""Those that AEPO's bonus asks for."""


class Mark(NamedTuple):
    """An answer against the gold answers, the best of which counts."""

    exact: bool
    f1: float


def grade(answer: str, golds: Sequence[str]) -> Mark:
    """Compare as SQuAD does: lower case, no articles, no punctuation; what has nothing else is compared as it is."""
    exact = any(_same(answer, gold) for gold in golds)
    f1 = max((token_f1(answer, gold) for gold in golds if normalised(gold)), default=0.0)
    return Mark(exact, 1.0 if exact else f1)


def _same(answer: str, gold: str) -> bool:
    words = normalised(gold)
    return normalised(answer) == words if words else answer.strip().casefold() == gold.strip().casefold()


def pay(reward: str, mark: Mark | None, used: Collection[str]) -> float:
    """What an episode earns at its end; `None` is one without an answer."""
    if reward == "aepo":
        return tool_answer_reward(mark.f1 if mark else 0.0, well_formed=mark is not None, used=used, tools=TOOLS)
    if mark is None:
        return 0.0
    return mark.f1 if reward == "f1" else float(mark.exact)
