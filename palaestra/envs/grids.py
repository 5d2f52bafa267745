"""What worlds of cells share: directions by name, several of them in one action, and grids turned and mirrored."""

from __future__ import annotations

import re
from collections.abc import Iterator

from palaestra.envs.spoken import spoken

DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
"""Name -> (rows down, columns to the right)."""
NOTHING_HAPPENS = "Nothing happens."

_NAMES = {name[: 1 if short else None]: name for name in DIRECTIONS for short in (False, True)}
_VERBS = re.compile(r"^(move|push|go|walk|turn) ")
_BETWEEN = re.compile(r",|\|\||\n")

Rows = tuple[str, ...]


def directions(action: object, most: int = 1) -> list[str] | None:
    """The directions that an action names, in order; `None` where it makes no sense.

    `up`, `Up.`, `u`, `move up` and `<action>up</action>` all mean the same; several are separated by commas, line ends
    or `||`.

    Args:
        action: what the agent said.
        most: directions in one action; more make no sense.
    """
    text = spoken(action)
    words = _BETWEEN.split(text.lower()) if text else []
    named = [_NAMES.get(_VERBS.sub("", word.strip().removesuffix("."))) for word in words]
    found = [name for name in named if name is not None]
    return found if 0 < len(found) == len(named) <= most else None


def symmetries(rows: Rows) -> Iterator[Rows]:
    """The grid in its eight positions: turned by quarters, each also mirrored."""
    for _ in range(4):
        rows = tuple("".join(column) for column in zip(*rows[::-1], strict=True))
        yield rows
        yield tuple(row[::-1] for row in rows)


def canonical(rows: Rows) -> str:
    """One text for all eight positions of a grid."""
    return "\n".join(min(symmetries(rows)))
