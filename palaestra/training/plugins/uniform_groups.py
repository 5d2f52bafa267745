"""The sample filter that leaves out groups whose episodes all got the same reward (Yu et al. 2025, DAPO)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.training.advantage import EQUAL
from palaestra.training.batch import Batch
from palaestra.training.numbering import number
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Moment, Parts


@dataclass(frozen=True, slots=True)
class UniformGroups:
    """Drops the groups whose episodes all got the same reward (dynamic sampling, Yu et al. 2025, in one round: groups
    are not played again until there are enough)."""

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[B] bool."""
        _, group, size = number(batch.group)
        outcome = batch.outcome
        empty = outcome.new_zeros(len(size))
        low = empty.scatter_reduce(0, group, outcome, "amin", include_self=False)
        high = empty.scatter_reduce(0, group, outcome, "amax", include_self=False)
        return (high - low > EQUAL)[group].to(torch.bool)


PLUGIN = Plugin(
    name="uniform_groups",
    summary="groups that say nothing dilute the update (dynamic sampling, one round)",
    source="Yu et al. 2025, arXiv 2503.14476",
    build=lambda settings, recipe: Parts(filters=(UniformGroups(),)),
    neutral=None,
    groups=True,
)
