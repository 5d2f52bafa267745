"""What a registry of plug-ins knows about each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Registered(Generic[P]):
    """One entry."""

    plugin: P
    """The plug-in, or what makes it."""
    summary: str
    """What it attacks, in one line."""
    source: str
    """Authors, year and arXiv id."""
