"""Arithmetic that somebody else wrote, read and computed exactly: whole numbers, brackets and + - * /.

Nothing is handed to Python's `eval`. Powers, decimals, names and digits of other scripts are no part of the language,
and length and nesting are bounded, so that no answer takes long.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import NamedTuple

LONGEST = 400
"""Characters."""
DEEPEST = 40
"""Brackets and signs inside each other."""
_TOKEN = re.compile(r"\s*(?:(0|[1-9][0-9]{0,5})(?![0-9.])|([-+*/()]))", re.ASCII)
_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {"+": add, "-": sub, "*": mul, "/": truediv}


class Value(NamedTuple):
    """What an expression comes to."""

    value: Fraction | None
    """`None` where it divides by zero."""
    numbers: tuple[int, ...]
    """Those that it uses, in their order."""


def evaluate(text: str) -> Value | None:
    """What `text` comes to; `None` where it is no expression, or too long or too deep."""
    if len(text) > LONGEST or (tokens := _tokens(text)) is None:
        return None
    reader = _Reader(tokens)
    try:
        value = reader.sum(0)
    except ValueError:
        return None
    return Value(value, tuple(reader.numbers)) if not reader.next else None


def _tokens(text: str) -> list[str] | None:
    tokens, position, text = list[str](), 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


def _apply(sign: str, left: Fraction | None, right: Fraction | None) -> Fraction | None:
    if left is None or right is None or (sign == "/" and not right):
        return None
    return _OPERATIONS[sign](left, right)


class _Reader:
    """Recursive descent: a sum of products of signed numbers and brackets."""

    def __init__(self, tokens: list[str]) -> None:
        self._left = tokens[::-1]
        self.numbers: list[int] = []

    @property
    def next(self) -> str:
        """The token to come; empty at the end."""
        return self._left[-1] if self._left else ""

    def sum(self, depth: int) -> Fraction | None:
        """Read a sum; `None` as in `Value`, ValueError where there is none."""
        value = self._product(depth)
        while self.next in ("+", "-"):
            value = _apply(self._left.pop(), value, self._product(depth))
        return value

    def _product(self, depth: int) -> Fraction | None:
        value = self._factor(depth)
        while self.next in ("*", "/"):
            value = _apply(self._left.pop(), value, self._factor(depth))
        return value

    def _factor(self, depth: int) -> Fraction | None:
        if depth > DEEPEST or not self._left:
            raise ValueError("too deep, or at its end")
        token = self._left.pop()
        if token == "-":
            return _apply("-", Fraction(0), self._factor(depth + 1))
        if token == "(":
            value = self.sum(depth + 1)
            if not self._left or self._left.pop() != ")":
                raise ValueError("not closed")
            return value
        self.numbers.append(int(token))  # ValueError for anything else
        return Fraction(self.numbers[-1])
