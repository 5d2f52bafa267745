"""Groups of trajectories that branched off each other: who sampled what, and how evenly they branched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from palaestra.trajectories.record import Trajectory

TOP = 3
"""Paths of a group whose share of the branches says whether branching has collapsed onto a few."""


def sampler(trajectory: Trajectory, turn: int, known: Mapping[str, Trajectory]) -> str:
    """Id of the trajectory that sampled the turn: this one, the one it branched off, or one that that branched off.

    Args:
        trajectory: any.
        turn: of it, from 0.
        known: trajectories by id; where the way back leaves them, it ends with the first id that is not there.
    """
    for _ in range(len(known) + 1):
        if turn >= trajectory.branched_at:
            break
        parent = known.get(trajectory.parent)
        if parent is None:
            return trajectory.parent
        trajectory = parent
    return trajectory.id


def keepers(kept: Sequence[Trajectory], known: Iterable[Trajectory]) -> list[list[int]]:
    """Of each trajectory's steps that came with the branch: the position in `kept` of the one to train them in.

    That is the trajectory that sampled them, or the first that has them where that one is not kept (because it failed
    later on, for example). So whatever is left out, every sampled token has one place.

    Args:
        kept: trajectories to learn from.
        known: those, and others of which they may have branched off.
    """
    by_id = {t.id: t for t in known}
    place = {t.id: position for position, t in enumerate(kept)}
    first: dict[tuple[str, int], int] = {}
    return [
        [
            place.get(owner, first.setdefault((owner, turn), position))
            for turn in range(t.branched_at)
            for owner in [sampler(t, turn, by_id)]
        ]
        for position, t in enumerate(kept)
    ]


def branch_statistics(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """How rollouts that may branch did; empty if these could not.

    `branches`: how many there were. `branch_begin`: mean over groups of how many the first rollout's entropies said
    should begin at the prompt (`None` where that was fixed). `branch_top3`: share of the branches that fell on the
    three paths of their group that had most, among groups with more than three (`None` if there are none); 1 is
    rollout collapse. `branch_row`: most branches of one path at results in a row. `branch_failures`: forks that failed.
    """
    if not any("branching" in t.meta for t in trajectories):
        return {}
    groups: dict[str, Counter[str]] = {}
    for t in trajectories:
        if t.parent:
            groups.setdefault(t.group, Counter())[t.parent] += 1
    wide = [group for group in groups.values() if group.total() > TOP]
    top = sum(count for group in wide for _, count in group.most_common(TOP))
    begin = [t.meta["split"]["begin"] for t in trajectories if "split" in t.meta]
    return {
        "branches": sum(map(Counter.total, groups.values())),
        "branch_begin": sum(begin) / len(begin) if begin else None,
        "branch_top3": top / sum(map(Counter.total, wide)) if wide else None,
        "branch_row": max(t.meta.get("branching", {}).get("consecutive", 0) for t in trajectories),
        "branch_failures": sum(len(t.meta.get("failed_forks", ())) for t in trajectories),
    }
