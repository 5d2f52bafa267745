"""The synchronous collector: an iteration plays one round of groups, and further ones where an algorithm asks for
them, and nobody plays while the learner learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from palaestra.training.collector import BuildRows, Played
from palaestra.training.player import Plays
from palaestra.training.rows import Rows
from palaestra.training.sampling import TaskSampler
from palaestra.training.seams import Moment, Parts
from palaestra.trajectories.record import Trajectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rounds:
    """A `Collector` without memory."""

    sampler: TaskSampler
    """Makes the episodes."""
    player: Plays
    """Plays them."""
    parts: Parts
    """Of the algorithm; their `chooser`, `allocator`, `planner` and `refill` have a say."""
    build: BuildRows

    async def collect(self, moment: Moment) -> Played:
        """Play an iteration. Changes no state of the algorithm."""
        drawn = self.sampler.round(moment, self.parts)
        trajectories = await self.player.play(drawn.episodes, moment.iteration, self.parts.planner)
        return await refilled(self, trajectories, (), list(drawn.places), drawn.log, moment)

    async def update(self, work: Callable[[], T]) -> T:
        """At once."""
        return work()

    async def save(self, work: Callable[[], None]) -> None:
        """At once."""
        work()

    async def hand_over(self, version: int) -> None:
        """Player and learner share the model."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], version: int) -> None:
        """Nothing is kept."""

    def saved(self) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing runs."""


async def refilled(
    by: Rounds,
    trajectories: list[Trajectory],
    witnesses: Sequence[Trajectory],
    places: list[int],
    log: Mapping[str, Any],
    moment: Moment,
) -> Played:
    """An iteration with the further rounds that the algorithm asks for.

    Args:
        by: who plays them, and makes rows.
        trajectories: what was played so far.
        witnesses: what they are compared with.
        places: of the tasks that were played, in the suite.
        log: of the first round.
        moment: the iteration.
    """

    def build() -> Rows:
        return by.build(trajectories, witnesses=witnesses)

    refill, rows = by.parts.refill, build()
    if refill is None:
        return Played(trajectories, rows, log)
    rounds, missing = 1, refill.missing(rows.batch, moment)
    while missing and rounds < refill.rounds:
        more = by.sampler.round(moment, by.parts, groups=missing, taken=places)
        trajectories += await by.player.play(more.episodes, moment.iteration, by.parts.planner)
        rows, rounds = build(), rounds + 1
        places += more.places
        missing = refill.missing(rows.batch, moment)
    return Played(
        trajectories, rows, {**log, "rounds": rounds, "groups_played": len(places), "groups_missing": missing}
    )
