"""Rewards for questions that are answered with the help of tools."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> list[str]:
    """The words of an answer, lower case, without articles and punctuation (SQuAD, Rajpurkar et al. 2016)."""
    plain = unicodedata.normalize("NFKC", text).lower().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def token_f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of the words of `answer` against `gold`, in [0, 1]; two answers without
    words are equal."""
    ours, theirs = normalised(answer), normalised(gold)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def tool_answer_reward(
    f1: float,
    *,
    well_formed: bool,
    used: Collection[str],
    tools: Collection[str] = ("search", "python"),
    bonus: float = 0.1,
) -> float:
    """AEPO's reward for a question (Dong et al., arXiv 2510.14545, equation 10).

    Args:
        f1: of the answer, or the best over several gold answers.
        well_formed: whether there is an answer in the form that was asked for; -1 if not, whatever it says.
        used: the tools that were called.
        tools: those that all have to be among them for the bonus, which only an answer that is not all wrong gets.
        bonus: what that adds.
    """
    if not well_formed:
        return -1.0
    return f1 + bonus if f1 > 0 and set(tools) <= set(used) else f1
