"""Pacing: how far rollouts may run ahead, so that what they sample is never too old and nothing is thrown away.

Update `u` learns from G groups with the weights of version `u`. A group that begins with weights of version `b` must be
learned from in update `b + S` at the latest: that is its **deadline**, and S the bound on staleness, as none of its
tokens is sampled by older weights. Deadlines can be kept as long as for every `d`

    groups with a deadline of at most d  <=  G * (d - next + 1)

where `next` is the update whose groups are chosen next. So a group begins only where this stays true with it, and the
learner takes a choice of groups only if this stays true without them; the earliest deadlines are the best choice. Since
the whole set always can be done in time, waiting for groups that run is all that the learner ever has to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast groups are learned from."""

    groups: int
    """G: of an update."""
    staleness: int
    """S."""

    def deadline(self, begun: int) -> int:
        """Last update that may learn from a group which weights of version `begun` began."""
        return begun + self.staleness

    def room(self, version: int, following: int, outstanding: int) -> int:
        """How many groups may begin.

        Args:
            version: of the weights that they would begin with; no group that is outstanding has newer ones.
            following: the update whose groups are chosen next.
            outstanding: groups that have begun, and that no update has taken.
        """
        return max(0, (self.deadline(version) - following + 1) * self.groups - outstanding)

    def choose(self, ready: Sequence[int], running: Sequence[int], following: int) -> list[int] | None:
        """Which groups update `following` learns from.

        Args:
            ready: deadlines of the groups that can be learned from.
            running: of those that cannot yet.
            following: the update.

        Returns:
            Positions in `ready`, the earliest deadlines, then the first; `None` if there are not enough yet, or others
            would come too late.
        """
        if len(ready) < self.groups:
            return None
        order = sorted(range(len(ready)), key=lambda place: (ready[place], place))
        chosen, rest = order[: self.groups], order[self.groups :]
        left = [*running, *(ready[place] for place in rest)]
        return chosen if self._feasible(left, following + 1) else None

    def _feasible(self, deadlines: Sequence[int], following: int) -> bool:
        """Whether all of them can be kept."""
        return all(
            count <= self.groups * (deadline - following + 1)
            for count, deadline in enumerate(sorted(deadlines), start=1)
        )
