"""The sample filter that keeps the groups whose returns differ most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.returns import returns_of


@dataclass(frozen=True, slots=True)
class WidestGroups:
    """Keeps `max(1, floor(part * G))` of G groups, those with the largest standard deviation (divisor n) of returns;
    among equals, those that come first. Part of Dr.BoT (Qin et al. 2025)."""

    part: float = 0.75
    """Of the groups, in [0, 1]."""

    def __call__(self, batch: Batch) -> Tensor:
        """[B] bool."""
        found = returns_of(batch)
        groups = len(found.std)
        widest = found.std.argsort(descending=True, stable=True)[: max(1, math.floor(self.part * groups))]
        keep = torch.zeros(groups, dtype=torch.bool)
        keep[widest] = True
        return keep[found.row_group]
