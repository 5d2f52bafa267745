"""The ledger: every group that was drawn, and how far it is. A group leaves it when all of it has been learned from.

    queued → running → taken by an update                         with all of its episodes: done with
                                     └→ parked → taken again      with those that were still being played

Checkpoints hold it (`state_dict`), but not the episodes: what of them is over is in the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palaestra.agents.episode import Episode
from palaestra.training.asynchronous.pacing import Pace
from palaestra.training.rows import TRAINABLE
from palaestra.trajectories.record import Trajectory


@dataclass(slots=True, eq=False)
class Group:
    """Episodes of one task."""

    iteration: int
    """That it was drawn for."""
    number: int
    """Among the groups of that."""
    place: int
    """Of the task in the suite."""
    episodes: list[Episode]
    begun: int | None = None
    """Version of the weights that it began with; `None` while it is queued."""
    over: dict[str, Trajectory] = field(default_factory=dict)
    """By id, the episodes that have ended."""
    learned: set[str] = field(default_factory=set)
    """Ids of those that an update had; not empty once the group is parked."""
    attempts: int = 0
    """How often all of it was played in vain."""

    @property
    def order(self) -> tuple[int, int]:
        """In which groups were drawn."""
        return self.iteration, self.number

    @property
    def missing(self) -> list[Episode]:
        """Episodes that have not ended."""
        return [episode for episode in self.episodes if episode.id not in self.over]

    @property
    def complete(self) -> bool:
        """Whether all have ended."""
        return len(self.over) == len(self.episodes)

    @property
    def spoilt(self) -> bool:
        """Whether it is over, and all of it was cut off from outside, so that nobody can learn from it."""
        return self.complete and not any(usable(trajectory) for trajectory in self.over.values())

    def quorate(self, quorum: float) -> bool:
        """Whether this part of it is over, with something to learn from."""
        enough = math.ceil(quorum * len(self.episodes) - 1e-9)
        return self.complete or (len(self.over) >= enough and any(map(usable, self.over.values())))

    def fresh(self) -> list[Trajectory]:
        """What is over and no update had, in the order of the episodes."""
        ids = [episode.id for episode in self.episodes]
        return [self.over[each] for each in ids if each in self.over and each not in self.learned]

    def witnesses(self) -> list[Trajectory]:
        """What an earlier update had."""
        return [self.over[episode.id] for episode in self.episodes if episode.id in self.learned & set(self.over)]


@dataclass(slots=True)
class Ledger:
    """The groups of a run that are not done with."""

    pace: Pace
    quorum: float = 1.0
    drawn: int = 0
    """Rounds that were drawn."""
    following: int = 0
    """The update whose groups are chosen next."""
    groups: list[Group] = field(default_factory=list)
    """In the order in which they were drawn."""
    logs: dict[int, dict[str, float | None]] = field(default_factory=dict)
    """What chooser and allocator said, by round."""

    @property
    def queued(self) -> list[Group]:
        """Those that have not begun."""
        return [group for group in self.groups if group.begun is None]

    @property
    def outstanding(self) -> list[Group]:
        """Those that have begun, and that no update has taken."""
        return [group for group in self.groups if group.begun is not None and not group.learned]

    @property
    def parked(self) -> list[Group]:
        """Those of which an update took what was over."""
        return [group for group in self.groups if group.learned]

    def room(self, version: int) -> int:
        """How many may begin with weights of `version`."""
        return self.pace.room(version, self.following, len(self.outstanding))

    def choose(self) -> list[Group] | None:
        """The groups of the next update, in the order in which they were drawn; `None` if the learner has to wait.

        Complete groups come first. A group that is not complete is taken if its quorum is, where there would be no
        choice otherwise.
        """
        complete = [group for group in self.outstanding if group.complete]
        chosen = self._among(complete)
        if chosen is None and self.quorum < 1:
            chosen = self._among([group for group in self.outstanding if group.quorate(self.quorum)])
        return chosen

    def take(self, chosen: Iterable[Group]) -> tuple[list[Trajectory], list[Trajectory]]:
        """What the next update learns from: the chosen groups, and the parked ones that are complete by now.

        Returns:
            Trajectories that no update had before, and those of the same groups that one had.
        """
        groups = sorted([*chosen, *(g for g in self.parked if g.complete)], key=lambda group: group.order)
        fresh = [trajectory for group in groups for trajectory in group.fresh()]
        witnesses = [trajectory for group in groups for trajectory in group.witnesses()]
        for group in groups:
            group.learned |= set(group.over)
        self.groups = [group for group in self.groups if not (group.learned and group.complete)]
        self.following += 1
        return fresh, witnesses

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        groups = [
            {
                "iteration": group.iteration,
                "number": group.number,
                "place": group.place,
                "size": len(group.episodes),
                "begun": group.begun,
                "learned": sorted(group.learned),
            }
            for group in self.groups
        ]
        logs = {str(number): log for number, log in self.logs.items()}
        return {"drawn": self.drawn, "following": self.following, "groups": groups, "logs": logs}

    def load_state_dict(
        self, state: Mapping[str, Any], remade: Callable[[int, int, int, int], Sequence[Episode]]
    ) -> None:
        """Put back what `state_dict` gave; `remade` makes the episodes of iteration, number, place and size again."""
        self.drawn, self.following = state["drawn"], state["following"]
        self.logs = {int(number): log for number, log in state["logs"].items()}
        self.groups = [
            Group(
                g["iteration"],
                g["number"],
                g["place"],
                list(remade(g["iteration"], g["number"], g["place"], g["size"])),
                begun=g["begun"],
                learned=set(g["learned"]),
            )
            for g in state["groups"]
        ]

    def _among(self, ready: Sequence[Group]) -> list[Group] | None:
        """The choice among those that are ready."""
        others = [group for group in self.outstanding if group not in ready]
        places = self.pace.choose(self._deadlines(ready), self._deadlines(others), self.following)
        return None if places is None else sorted((ready[place] for place in places), key=lambda group: group.order)

    def _deadlines(self, groups: Sequence[Group]) -> list[int]:
        return [self.pace.deadline(group.begun) for group in groups if group.begun is not None]


def usable(trajectory: Trajectory) -> bool:
    """Whether it was not cut off from outside."""
    return trajectory.status in TRAINABLE
