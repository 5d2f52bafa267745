"""The sample filter that keeps the groups whose returns differ most (Qin et al. 2025, arXiv 2509.22601, Dr.BoT item 6).

It looks at returns with all rewards that plug-ins add, so that groups which agree in their outcome compete by the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.config import Config, Fraction, Recipe
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.returns import returns_of
from palaestra.training.seams import Moment, Parts


class Settings(Config, frozen=True, kw_only=True):
    """How many stay."""

    part: Fraction = 0.75
    """Of the groups; at least one group stays."""


@dataclass(frozen=True, slots=True)
class WidestGroups:
    """Keeps `max(1, floor(part * G))` of G groups, those with the largest standard deviation (divisor n) of returns;
    among equals, those that come first. Part of Dr.BoT (Qin et al. 2025)."""

    part: float = 0.75
    """Of the groups, in [0, 1]."""

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[B] bool."""
        found = returns_of(batch)
        groups = len(found.std)
        widest = found.std.argsort(descending=True, stable=True)[: max(1, math.floor(self.part * groups))]
        keep = torch.zeros(groups, dtype=torch.bool)
        keep[widest] = True
        return keep[found.row_group]


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The filter, behind the rewards."""
    return Parts(selectors=(WidestGroups(settings.part),)) if settings.part < 1 else Parts()


PLUGIN = Plugin(
    name="widest_groups",
    summary="groups whose episodes ended nearly alike say little: the 75 % whose returns differ most stay",
    source="Qin et al. 2025, arXiv 2509.22601",
    settings=Settings,
    build=build,
    neutral={"part": 1.0},
    groups=True,
)
