"""Moves by grammar: what a game's templates allow, and what the game itself lists as legal."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from itertools import product

_HOLE = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(?P<first>\d+|[A-Za-z])-(?P<last>\d+|[A-Za-z])")
_LIST = re.compile(
    r"(?:(?:available|valid) (?:moves|actions)(?: are)?|remaining hand)\s*:(?P<moves>[^\n]*)", re.IGNORECASE
)
_MOVE = re.compile(r"\[[^\[\]]+\]")

Template = tuple[tuple[str, ...], ...]
"""What may stand at each place; joined, the places are a move."""


@lru_cache(None)
def parsed(template: str) -> Template:
    """The places of a template; see `games`."""
    return tuple(_choices(part) if i % 2 else (part,) for i, part in enumerate(_HOLE.split(template)))


def _choices(hole: str) -> tuple[str, ...]:
    match = _RANGE.fullmatch(hole)
    if match is None:
        return tuple(hole.split("|"))
    first, last = match["first"], match["last"]
    if first.isdigit():
        return tuple(map(str, range(int(first), int(last) + 1)))
    return tuple(map(chr, range(ord(first), ord(last) + 1)))


def draw(templates: tuple[str, ...], generator: random.Random) -> str:
    """A move that one of the templates allows: each template is as likely as any other."""
    return "".join(map(generator.choice, parsed(generator.choice(templates))))


def all_moves(templates: tuple[str, ...]) -> list[str]:
    """Every move that they allow."""
    return ["".join(parts) for template in templates for parts in product(*parsed(template))]


def listed(text: str) -> list[str]:
    """The moves that a game's last list of legal moves has; empty where `text` has no such list."""
    lists = _LIST.findall(text)
    return _MOVE.findall(lists[-1]) if lists else []
