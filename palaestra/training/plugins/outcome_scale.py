"""What the environment's own reward is worth beside those that plug-ins add.

    R = factor * R_env + ...

Methods whose constants presume a scale of rewards need it: SPEAR's covariances (Qin et al. 2025, arXiv 2509.22601) go
with a success worth 10, and its tool-call reward of at most 1 is then a tenth of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.config import Config, PositiveFloat, Recipe
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Moment, Parts


class Settings(Config, frozen=True, kw_only=True):
    """How much."""

    factor: PositiveFloat = 10.0
    """Of the sum of an episode's rewards; penalties for refused actions are as they are."""


@dataclass(frozen=True, slots=True)
class OutcomeScale:
    """Adds `(factor - 1) * R_env`."""

    factor: float

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[N] float64."""
        assert batch.episodes is not None
        own = torch.tensor([each.total_reward for each in batch.episodes], dtype=torch.float64)
        return (self.factor - 1) * own


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Nothing for factor 1."""
    return Parts(rewards=(OutcomeScale(settings.factor),)) if settings.factor != 1 else Parts()


PLUGIN = Plugin(
    name="outcome_scale",
    summary="rewards of another size than a method's constants presume",
    source="Qin et al. 2025, arXiv 2509.22601",
    settings=Settings,
    build=build,
    neutral={"factor": 1.0},
)
