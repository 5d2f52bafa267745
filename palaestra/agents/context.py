"""Context policies: which of the nodes so far are the prompt of the next completion.

They choose among nodes that exist; none writes, copies or re-encodes one. Where a policy leaves something out, the
prompt no longer extends the previous one: the step's record then names its nodes, and a learner begins a new row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from palaestra.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Turn:
    """The nodes of one turn, as indices."""

    observation: range
    """What the environment wrote."""
    action: range
    """What makes the model answer and, of turns that are done, the completion and what closes it."""


class ContextPolicy(Protocol):
    """Chooses the prompt."""

    def select(self, prefix: range, turns: Sequence[Turn]) -> list[int]:
        """Indices of the nodes of the next prompt, in order.

        Args:
            prefix: what came before the first turn (system message, beginning of the text).
            turns: all so far; the last is the one to be answered, and must be in the prompt whole.
        """


@dataclass(frozen=True, slots=True)
class FullContext:
    """Everything so far: each prompt extends the one before, and an episode is one row for a learner."""

    def select(self, prefix: range, turns: Sequence[Turn]) -> list[int]:
        """All nodes."""
        return list(range(prefix.start, turns[-1].action.stop))


@dataclass(frozen=True, slots=True)
class WindowContext:
    """The last turns only, so that a prompt has bounded length."""

    turns: int
    """How many, the present one included; at least 1."""
    keep_first: bool = True
    """Keep the first observation as well, where environments state the task."""

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ConfigError(f"a window of {self.turns} turns has no room for the present one; use at least 1")

    def select(self, prefix: range, turns: Sequence[Turn]) -> list[int]:
        """The prefix, the first observation if it is kept, and the last `turns` turns."""
        start = max(0, len(turns) - self.turns)
        first = turns[0].observation if start and self.keep_first else ()
        return [*prefix, *first, *range(turns[start].observation.start, turns[-1].action.stop)]
