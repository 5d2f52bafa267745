"""What episodes returned lately: the baseline of replayed ones (SPEAR, Qin et al. 2025, arXiv 2509.22601)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from palaestra.errors import CheckpointError


class BaselineBuffer:
    """Mean returns of the groups of past iterations, oldest first; whole iterations leave it."""

    def __init__(self, capacity: int = 10240) -> None:
        """`capacity`: numbers beyond which the next push drops the oldest iterations."""
        self._capacity = capacity
        self._steps: deque[tuple[float, ...]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._steps))

    @property
    def contents(self) -> tuple[float, ...]:
        """Oldest first."""
        return tuple(value for step in self._steps for value in step)

    def push(self, means: Sequence[float]) -> None:
        """Add an iteration. There is room made before, not after, so up to `len(means)` more than the capacity stay."""
        size = len(self)
        while size > self._capacity:
            size -= len(self._steps.popleft())
        self._steps.append(tuple(map(float, means)))

    def p50(self) -> float | None:
        """The median, the mean of the two middle values where their count is even; `None` while empty."""
        contents = self.contents
        return median(contents) if contents else None

    def state_dict(self) -> dict[str, Any]:
        """JSON values; floats keep every bit."""
        return {"steps": [list(step) for step in self._steps]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the contents by saved ones.

        Raises:
            CheckpointError: `state` did not come from `state_dict`.
        """
        try:
            self._steps = deque(tuple(map(float, step)) for step in state["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not a saved baseline buffer: {error!r}") from error
