"""Equality that needs no computer algebra: of texts and of rational numbers, both exact."""

from __future__ import annotations

import re
from fractions import Fraction

MOST_DIGITS = 200
"""Of a number that is compared as one."""
_INTEGER = r"[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+"
_DECIMAL = re.compile(rf"([+-]?)({_INTEGER})?(?:\.([0-9]+))?")
_RATIO = re.compile(r"([+-]?)(?:\\frac\{([0-9]+)\}\{([0-9]+)\}|\\frac([0-9])([0-9])|([0-9]+)/([0-9]+))")
_SAME = {
    "\u2212": "-",
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    "{,}": ",",
    r"\!": "",
    r"\,": "",
    r"\ ": "",
    r"\$": "",
    "$": "",
}
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}\\]*)\}")


def equal(answer: str, gold: str) -> bool | None:
    """Whether the two are the same, where that is plain to see; `None` where it takes a judge.

    Equal texts are, without their spaces, dollar signs and `\\text{}`; so are equal rational numbers, written as
    integers (with or without commas between thousands), decimals or fractions. Two integers that differ are not.
    """
    ours, theirs = _plain(answer), _plain(gold)
    if ours == theirs:
        return True
    one, other = number(ours), number(theirs)
    if one is None or other is None:
        return None
    if one == other:
        return True
    return False if one.denominator == other.denominator == 1 else None


def repeats(answer: str, problem: str) -> bool:
    """Whether `answer` is a formula that the problem itself shows, spaces aside, which solves nothing.

    Words and single letters, such as that of a choice, are no formulas.
    """
    plain = _plain(answer)
    return any(each in "+-*/^_!{\\" for each in plain[1:]) and plain in _plain(problem)


def number(text: str) -> Fraction | None:
    """The rational number that `text` writes in ASCII digits, exactly; `None` where it is none, or a very long one."""
    if len(text) > MOST_DIGITS:
        return None
    if (found := _DECIMAL.fullmatch(text)) and (found[2] or found[3]):
        return Fraction(f"{found[1]}{(found[2] or '0').replace(',', '')}.{found[3] or '0'}")
    if found := _RATIO.fullmatch(text):
        above, below = (int(group) for group in found.groups()[1:] if group is not None)
        return Fraction(-above if found[1] == "-" else above, below) if below else None
    return None


def _plain(text: str) -> str:
    for wordy, short in _SAME.items():
        text = text.replace(wordy, short)
    return "".join(_TEXT.sub(r"\1", text).split()).rstrip(".")
