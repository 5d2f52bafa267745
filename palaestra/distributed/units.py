"""Units: what one message asks of a worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from palaestra.agents.episode import Episode


@dataclass(frozen=True, slots=True)
class Unit:
    """Episodes that one worker plays: a group or a part of one, since those share their prompt."""

    positions: tuple[int, ...]
    """Where they are among all that were asked for."""
    episodes: tuple[Episode, ...]

    def __len__(self) -> int:
        """How many episodes."""
        return len(self.episodes)


def units_of(episodes: Sequence[Episode], workers: int, *, whole: bool = False) -> list[Unit]:
    """Share episodes out, in their order of first appearance.

    Args:
        episodes: what to play. Those without a group are alone.
        workers: how many there are. A group that has more than its even share of the episodes is played in parts, so
            that nobody is idle.
        whole: never part a group; a planner plays it as a whole.
    """
    groups: dict[str, list[int]] = {}
    for position, episode in enumerate(episodes):
        groups.setdefault(f"group {episode.group}" if episode.group else f"episode {position}", []).append(position)
    most = max(1, math.ceil(len(episodes) / max(1, workers)))
    units = []
    for members in groups.values():
        parts = 1 if whole else math.ceil(len(members) / most)
        size = math.ceil(len(members) / parts)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            units.append(Unit(tuple(part), tuple(episodes[position] for position in part)))
    return units
