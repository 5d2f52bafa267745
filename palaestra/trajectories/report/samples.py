"""Which trajectories a report shows: solved and failed ones, from before and after training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.report.run import AFTER, BEFORE, Run, readable

PER_OUTCOME = 3
"""Trajectories shown of each source and outcome."""
POOL = 1000
"""How many of a source are looked at."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One trajectory and where it comes from."""

    source: str
    """As it is called on the page."""
    trajectory: Trajectory


def samples(run: Run) -> list[Sample]:
    """The trajectories to show, best story first: where possible the same tasks after and before training."""
    files = run.trajectory_files()
    after = _choose(_evaluated(files, AFTER))
    before = _choose(_evaluated(files, BEFORE), prefer=frozenset(t.task for t in after))
    first, last = _ends(readable(files["train"])) if "train" in files else ([], [])
    sources = {
        "after training": after,
        "before training": before,
        "last iteration": _choose(last),
        "first iteration": _choose(first),
    }
    return [Sample(source, trajectory) for source, chosen in sources.items() for trajectory in chosen]


def _evaluated(files: dict[str, Path], tags: tuple[str, ...]) -> list[Trajectory]:
    for tag in tags:
        if (file := files.get(f"eval-{tag}")) is not None:
            return [trajectory for trajectory, _ in zip(readable(file), range(POOL), strict=False)]
    return []


def _ends(trajectories: Iterable[Trajectory]) -> tuple[list[Trajectory], list[Trajectory]]:
    """Those of the first iteration and those of the last; the latter is empty if there is only one."""
    first: list[Trajectory] = []
    last: list[Trajectory] = []
    running = None
    for trajectory in trajectories:
        iteration = trajectory.id.partition("/")[0]
        if iteration != running:
            first, last, running = first or last, [], iteration
        if len(last) < POOL:
            last.append(trajectory)
    return (first, last) if first else (last, [])


def _choose(pool: list[Trajectory], prefer: frozenset[str] = frozenset()) -> list[Trajectory]:
    """Up to `PER_OUTCOME` solved, then failed ones: preferred tasks first, and of as many kinds as there are."""
    chosen: list[Trajectory] = []
    for solved in (True, False):
        rest = [t for t in pool if t.success is solved and t.steps]
        kinds: Counter[str] = Counter()
        for _ in range(min(PER_OUTCOME, len(rest))):
            best = min(rest, key=lambda t: (t.task not in prefer, kinds[t.kind]))
            rest.remove(best)
            kinds[best.kind] += 1
            chosen.append(best)
    return chosen
