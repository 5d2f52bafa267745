"""What an iteration plays: one round of groups, and further ones where an algorithm asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from palaestra.training.player import Player
from palaestra.training.rows import Rows
from palaestra.training.sampling import TaskSampler
from palaestra.training.seams import Moment, Parts
from palaestra.trajectories.record import Trajectory


@dataclass(frozen=True, slots=True)
class Played:
    """The episodes of an iteration."""

    trajectories: list[Trajectory]
    """Of all rounds, in order."""
    rows: Rows
    """Made from them."""
    log: Mapping[str, float | None]
    """For the metrics: what chooser and allocator said of the first round, and how many rounds there were."""


async def play_rounds(
    sampler: TaskSampler,
    player: Player,
    parts: Parts,
    moment: Moment,
    build: Callable[[Sequence[Trajectory]], Rows],
) -> Played:
    """Play an iteration. Changes no state of the algorithm.

    Args:
        sampler: makes the episodes.
        player: plays them.
        parts: of the algorithm; their `chooser`, `allocator`, `planner` and `refill` have a say.
        moment: the iteration.
        build: makes rows from trajectories.
    """
    drawn = sampler.round(moment, parts)
    trajectories = await player.play(drawn.episodes, moment.iteration, parts.planner)
    rows = build(trajectories)
    if parts.refill is None:
        return Played(trajectories, rows, drawn.log)
    rounds, places, refill = 1, list(drawn.places), parts.refill
    missing = refill.missing(rows.batch, moment)
    while missing and rounds < refill.rounds:
        more = sampler.round(moment, parts, groups=missing, taken=places)
        trajectories += await player.play(more.episodes, moment.iteration, parts.planner)
        rows, rounds = build(trajectories), rounds + 1
        places += more.places
        missing = refill.missing(rows.batch, moment)
    log = {"rounds": rounds, "groups_played": len(places), "groups_missing": missing}
    return Played(trajectories, rows, {**drawn.log, **log})
