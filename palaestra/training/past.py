"""What SPEAR remembers (Qin et al. 2025, arXiv 2509.22601): how well groups did lately, and what did better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palaestra.errors import CheckpointError
from palaestra.training.baseline import BaselineBuffer
from palaestra.training.batch import Batch
from palaestra.training.replay import ReplayBuffer
from palaestra.training.returns import group_means, group_stds
from palaestra.training.seams import NOTHING, Moment, Need
from palaestra.training.stored import take


@dataclass(frozen=True, slots=True)
class Past:
    """Three buffers as a tracker. They move before an update, whose baseline counts the iteration itself."""

    means: BaselineBuffer
    """Mean returns of groups."""
    stds: BaselineBuffer
    """Their standard deviations."""
    episodes: ReplayBuffer
    requires: frozenset[Need] = field(default=NOTHING)

    def take_in(self, batch: Batch, moment: Moment) -> None:
        """Push the groups' numbers, insert the episodes that did better than theirs, drop the stale."""
        self.means.push(group_means(batch))
        self.stds.push(group_stds(batch))
        self.episodes.insert(take(batch, moment.iteration), moment.iteration)

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Nothing is left to do after an update."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {name: getattr(self, name).state_dict() for name in _BUFFERS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: it did not come from there.
        """
        if missing := set(_BUFFERS) - set(state):
            raise CheckpointError(f"not a saved state of self-imitation: it has no {min(missing)}")
        for name in _BUFFERS:
            getattr(self, name).load_state_dict(state[name])


_BUFFERS = ("means", "stds", "episodes")
