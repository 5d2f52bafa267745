"""Expressions in the original's grammar, without `eval`.

A game file brings its own text grammar, whose `{…}` the original hands to Python's `eval`: a game from somebody else
could do anything. Here they are what ALFWorld's grammars use, and nothing more: names of things, strings, `+` and `or`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from textworld.envs.pddl import textgen

from palaestra.errors import DataError

ATTRIBUTES = ("name", "id", "definite", "indefinite", "type")
LONGEST = 500
"""Characters of an expression."""


def refuse_code() -> None:
    """Have all games of this process compute expressions here."""
    textgen.EvalSymbol.derive = _derive


def compute(expression: str, variables: Mapping[str, Any]) -> str:
    """What an expression comes to.

    Raises:
        DataError: it is another kind of expression, or names something that is not there.
    """
    try:
        if len(expression) > LONGEST:
            raise ValueError("it is too long")
        return _value(ast.parse(expression.strip(), mode="eval").body, variables)
    except (SyntaxError, ValueError, RecursionError, MemoryError, KeyError, AttributeError) as error:
        raise DataError(f"the game's grammar has an expression that is refused, {expression[:80]!r}: {error}") from None


def _value(node: ast.expr, variables: Mapping[str, Any]) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return str(variables[name])
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if attribute in ATTRIBUTES:
            return str(getattr(variables[name], attribute) or "")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, variables) + _value(right, variables)
        case ast.BoolOp(op=ast.Or(), values=values):
            return next(filter(None, (_value(value, variables) for value in values)), "")
    raise ValueError("only names of things, strings, + and or are known")


def _derive(symbol: Any, context: dict[str, Any] | None = None) -> list[Any]:
    context = context or symbol.context
    return [textgen.TerminalSymbol(compute(symbol.expression, context["variables"]))]
