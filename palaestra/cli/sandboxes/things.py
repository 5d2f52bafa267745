"""What sandboxes take, as a table and as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palaestra.sandboxes.things import Thing


_WIDE = 240
"""Columns of a table that is not for a terminal, so that nothing is cut off."""


def rows(things: Sequence[Thing]) -> list[dict[str, Any]]:
    """As JSON values."""
    import msgspec

    return [msgspec.to_builtins(thing) for thing in things]


def print_things(things: Sequence[Thing]) -> None:
    """As a table; nothing where there is nothing."""
    from rich.console import Console
    from rich.table import Table

    if not things:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "kind", "back end", "image", "holder", "age", "state"):
        table.add_column(name, no_wrap=True, min_width=None if name in ("image", "holder") else len(name))
    for thing in sorted(things, key=lambda each: (each.lease, each.created or 0.0)):
        table.add_row(*map(_printable, _row(thing)))
    width = None if sys.stdout.isatty() else _WIDE
    Console(highlight=False, markup=False, width=width).print(table)


def tell_unseen(unseen: Mapping[str, str]) -> None:
    """Say on standard error what could not be looked at."""
    for name, reason in unseen.items():
        print(f"palaestra: {name} left out: {reason}", file=sys.stderr)


def _row(thing: Thing) -> list[str]:
    name = Path(thing.name).name if thing.kind == "folder" else thing.name.removeprefix("sha256:")
    short = name[:12] if len(name) == 64 else thing.title or name
    return [short, thing.kind, thing.backend, thing.image, _holder(thing), _age(thing.created), thing.state]


def _holder(thing: Thing) -> str:
    if thing.holder is None:
        return "?"
    return f"{thing.holder.pid} {thing.holder.user}@{thing.holder.host} {thing.holder.command[:60]}"


def _age(created: float | None) -> str:
    """`45 s`, `12 min`, `3 h`, `2 d`."""
    if created is None:
        return "?"
    seconds = max(0.0, time.time() - created)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _printable(text: str) -> str:
    """Labels and names may be anybody's: nothing in them moves the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
