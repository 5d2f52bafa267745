"""What was asked of an endpoint, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from palaestra.agents.engines.openai.limits import Prices
from palaestra.errors import DataError
from palaestra.trajectories.record import Trajectory

KEY = "usage"
"""Where an episode has it, in `Trajectory.meta`."""


class Usage(msgspec.Struct, kw_only=True):
    """Counts of one conversation, or the sum of several. Tokens are as the endpoint counts them."""

    requests: int = 0
    """Those that were answered."""
    retries: int = 0
    """Requests that were sent again."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts', those that the endpoint had kept."""
    completion_tokens: int = 0
    """Those of thinking that is not shown included."""
    uncounted: int = 0
    """Requests of which the endpoint did not say how many tokens they took."""
    cut_off: int = 0
    """Answers that the most tokens ended."""
    cost: float | None = None
    """At the prices that the user gave; `None` without any."""

    def enter(self, prompt: int, cached: int, answer: int, prices: Prices | None) -> None:
        """Count one request that was answered."""
        cached = min(cached, prompt)
        self.requests += 1
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.completion_tokens += answer
        if prices is not None:
            self.cost = (self.cost or 0.0) + prices.of(prompt, cached, answer)

    def add(self, other: Usage) -> None:
        """Count what `other` counted."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.cost is not None:
            self.cost = (self.cost or 0.0) + other.cost

    def noted(self) -> dict[str, Any]:
        """As `Trajectory.meta` has it."""
        return dict(msgspec.structs.asdict(self))


_COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "cost")


def usage_of(trajectories: Iterable[Trajectory]) -> Usage | None:
    """The sum over episodes; `None` where none was played at an endpoint.

    Raises:
        DataError: a record holds no such counts where it should.
    """
    total: Usage | None = None
    for trajectory in trajectories:
        if (noted := trajectory.meta.get(KEY)) is not None:
            total = total or Usage()
            try:
                total.add(msgspec.convert(noted, Usage))
            except msgspec.ValidationError as error:
                raise DataError(f"trajectory {trajectory.id!r} has no usage that can be read: {error}") from error
    return total
