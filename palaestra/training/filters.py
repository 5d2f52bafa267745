"""Sample filters: which rows of an iteration take part in its update at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.training.algorithm import Filter
from palaestra.training.batch import Batch
from palaestra.training.numbering import number
from palaestra.training.registry import Registered
from palaestra.training.spread import WidestGroups

EQUAL = 1e-6
"""Rewards this close are the same; more of a difference comes from what was played, not from rounding."""


@dataclass(frozen=True, slots=True)
class UniformGroups:
    """Drops the groups whose episodes all got the same reward (dynamic sampling, Yu et al. 2025, in one round: groups
    are not played again until there are enough)."""

    def __call__(self, batch: Batch) -> Tensor:
        """[B] bool."""
        _, group, size = number(batch.group)
        empty = batch.reward.new_zeros(len(size))
        low = empty.scatter_reduce(0, group, batch.reward, "amin", include_self=False)
        high = empty.scatter_reduce(0, group, batch.reward, "amax", include_self=False)
        return (high - low > EQUAL)[group].to(torch.bool)


FILTERS: dict[str, Registered[Callable[[], Filter]]] = {
    "uniform_groups": Registered(
        UniformGroups,
        "groups that say nothing dilute the update (dynamic sampling, one round)",
        "Yu et al. 2025, arXiv 2503.14476",
    ),
    "widest_groups": Registered(
        WidestGroups,
        "groups whose episodes ended nearly alike say little: the 75 % whose returns differ most stay",
        "Qin et al. 2025, arXiv 2509.22601",
    ),
}
"""Add an entry to make a filter available in `algorithm.filters`."""
