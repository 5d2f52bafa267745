"""How old the weights were that sampled what an update learns from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from palaestra.trajectories.record import Trajectory


def staleness_histogram(trajectories: Iterable[Trajectory], version: int) -> Counter[int]:
    """Sampled tokens by the number of updates between the weights that sampled them and those of `version`.

    Tokens that a trajectory has from the one that it branched off count there.
    """
    found: Counter[int] = Counter()
    for trajectory in trajectories:
        copied = max((step.completion + 1 for step in trajectory.steps[: trajectory.branched_at]), default=0)
        for node in trajectory.nodes[copied:]:
            if node.sampled and node.versions is not None:
                found.update(version - each for each in node.versions)
            elif node.sampled:
                found[version - node.weight_version] += len(node.ids)
    return found


def staleness_statistics(trajectories: Iterable[Trajectory], version: int, bound: int) -> dict[str, Any]:
    """For the metrics: the histogram, with every staleness up to `bound`, its mean and the largest."""
    found = staleness_histogram(trajectories, version)
    tokens = found.total()
    every = sorted({*range(bound + 1), *found})
    return {
        "staleness": {str(each): found[each] for each in every},
        "staleness_mean": sum(each * count for each, count in found.items()) / tokens if tokens else 0.0,
        "staleness_max": max((each for each, count in found.items() if count), default=0),
    }


def oldest(trajectory: Trajectory) -> float:
    """Lowest version among the weights that sampled it; infinite where nothing was sampled."""
    nodes = [node for node in trajectory.nodes if node.sampled]
    return min((min(node.versions or [node.weight_version]) for node in nodes), default=math.inf)


def newest(trajectory: Trajectory) -> int:
    """Highest version among the weights that sampled it; 0 where nothing was sampled."""
    return max((max(node.versions or [node.weight_version]) for node in trajectory.nodes if node.sampled), default=0)
