"""The policy, as messages name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from palaestra.config import AgentConfig


class Refs(NamedTuple):
    """Ray's references; only who lacks a thing fetches it."""

    skeleton: Any
    """Of the `Skeleton`, which stays the same."""
    packing: Any
    """Of the `Packing`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The model that is being trained, and how it plays."""

    name: str
    settings: AgentConfig
    serial: int
    """Counts the weights that the learner has handed over; nobody goes back to earlier ones."""
    version: int
    """Of the weights: noted on what they sample."""
    refs: Refs
