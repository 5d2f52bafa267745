"""The original's text grammar, made to do things once: the same texts in a fraction of the time.

`textworld` parses each template and each query again for every command of every step, and copies the scene deeply for
every symbol of a text. Here what was parsed is remembered, and copies share the entities, which nobody changes.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from textworld.envs.pddl import textgen

_STOCK = (textgen._parse_and_convert, textgen.Rule.parse_conjunctive_query, textgen.copy_context)


def use_fast_grammar(fast: bool) -> None:
    """Have all games of this process use the fast functions, or the stock ones again."""
    parse, parse_query, copy_context = (_parse, cache(_STOCK[1]), _copy_context) if fast else _STOCK
    textgen._parse_and_convert = parse
    textgen.Rule.parse_conjunctive_query = staticmethod(parse_query)
    textgen.copy_context = copy_context


def _parse(text: str, rule_name: str, **_: Any) -> Any:
    """A copy for each caller, who will change it."""
    return pickle.loads(_parsed(text, rule_name))


@cache
def _parsed(text: str, rule_name: str) -> bytes:
    return pickle.dumps(_STOCK[0](text, rule_name=rule_name))


def _copy_context(context: dict[str, Any]) -> dict[str, Any]:
    return {**context, "variables": dict(context["variables"]), "mapping": dict(context["mapping"])}
