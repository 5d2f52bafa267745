"""Groups: episodes whose returns are compared with each other, which asks for one start."""

from __future__ import annotations

from collections.abc import Iterable

from palaestra.errors import TrainingError
from palaestra.trajectories.record import Trajectory


def require_equal_starts(trajectories: Iterable[Trajectory]) -> None:
    """Refuse to learn from a group whose members began in different states.

    A group's mean return is the baseline of each member. If their starts differ, an advantage says how lucky a member
    was, not how well it did, and training goes astray without a sign. Leaving the group out would hide that from every
    group to come, so training stops here.

    Raises:
        TrainingError: two members of one group differ in their first observation.
    """
    first: dict[str, Trajectory] = {}
    for trajectory in trajectories:
        if not trajectory.group or not trajectory.start_hash:
            continue
        other = first.setdefault(trajectory.group, trajectory)
        if other.start_hash != trajectory.start_hash:
            raise TrainingError(
                f"{trajectory.env}: episodes {other.id} and {trajectory.id} of group {trajectory.group!r} play task "
                f"{trajectory.task!r} with the same seed but start differently, so their returns do not compare; "
                f"see what differs with: palaestra check {trajectory.env}"
            )
