"""The asynchronous collector of several ranks: the first one's, to which the others listen.

Only the first rank plays, or has others play, so that one ledger paces everybody; while it waits for groups, so do the
other ranks, and all of them update together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from palaestra.training.collector import Collector, Played
from palaestra.training.gang import by_first
from palaestra.training.seams import Moment

T = TypeVar("T")


class GangCollector:
    """A `Collector`, on every rank."""

    def __init__(self, first: Collector | None) -> None:
        """`first` collects; `None` on the other ranks."""
        self.first = first

    async def collect(self, moment: Moment) -> Played:
        """What the first rank collected.

        Raises:
            TrainingError: the first rank cannot.
        """
        return await by_first(lambda: self._first.collect(moment))

    async def update(self, work: Callable[[], T]) -> T:
        """On all ranks together."""
        return work() if self.first is None else await self.first.update(work)

    async def save(self, work: Callable[[], None]) -> None:
        """On all ranks together."""
        await self.update(work) if self.first is None else await self.first.save(work)

    async def hand_over(self, version: int) -> None:
        """The other ranks do not play."""
        if self.first is not None:
            await self.first.hand_over(version)

    def state_dict(self) -> dict[str, Any]:
        """The first rank's, which writes it."""
        return {} if self.first is None else self.first.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], version: int) -> None:
        """As `Collector.load_state_dict`."""
        if self.first is not None:
            self.first.load_state_dict(state, version)

    def saved(self) -> None:
        """As `Collector.saved`."""
        if self.first is not None:
            self.first.saved()

    async def close(self) -> None:
        """As `Collector.close`."""
        if self.first is not None:
            await self.first.close()

    @property
    def _first(self) -> Collector:
        assert self.first is not None
        return self.first
