"""Where an iteration's episodes come from: the one thing in which the two trainers differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from palaestra.training.rows import Rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Trajectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Played:
    """The episodes of an iteration."""

    trajectories: list[Trajectory]
    """In order; each is learned from for the first time."""
    rows: Rows
    """Made from them, and from others that they are compared with."""
    log: Mapping[str, Any]
    """For the metrics: what chooser and allocator said of the first round, how many rounds there were, how old the
    weights were."""


class BuildRows(Protocol):
    """Makes rows from trajectories."""

    def __call__(self, trajectories: Sequence[Trajectory], *, witnesses: Sequence[Trajectory] = ()) -> Rows:
        """See `build_rows`."""


class Collector(Protocol):
    """Collects what an iteration learns from."""

    async def collect(self, moment: Moment) -> Played:
        """The episodes of the iteration at `moment`; the learner's weights are those of its beginning.

        Raises:
            PalaestraError: nobody can play on.
        """

    async def update(self, work: Callable[[], T]) -> T:
        """Let the learner do its `work`. Either it is not begun, or it is done when this ends, however it ends."""

    async def save(self, work: Callable[[], None]) -> None:
        """Let a checkpoint be written: `work`, while the learner rests; done when this ends, however it ends."""

    async def hand_over(self, version: int) -> None:
        """The learner's weights are those of `version` now."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, JSON values. The last iteration's episodes have been learned from."""

    def load_state_dict(self, state: Mapping[str, Any], version: int) -> None:
        """Put back what `state_dict` gave; the learner's weights are those of `version`."""

    def saved(self) -> None:
        """A checkpoint of the present state is on the disk."""

    async def close(self) -> None:
        """End what runs; may be called more than once."""
