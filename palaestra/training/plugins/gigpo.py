"""GiGPO: group-in-group policy optimisation (Feng et al., arXiv 2505.10978).

    A = A_episode + omega A_step        A_step: the return to go against the group's visits to the same state

Equations (9) to (12) of the paper's notation are in `palaestra.training.gigpo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from palaestra.config import Config, Fraction, NonNegativeFloat, Recipe
from palaestra.errors import ConfigError
from palaestra.training.advantage import Singleton, Weighting
from palaestra.training.batch import Batch
from palaestra.training.gigpo import gigpo_advantage
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Parts


class Settings(Config, frozen=True, kw_only=True):
    """Of the step part."""

    gamma: Fraction = 0.95
    """Discount of the return to go."""
    omega: NonNegativeFloat = 1.0
    """Weight of the step part; with 0 the advantage is the group's."""


@dataclass(frozen=True, slots=True)
class GigpoAdvantage:
    """That of the episode plus one of each step among the group's visits to the same state; see `gigpo_advantage`."""

    normalise: Literal["mean", "std"] = "std"
    weighting: Weighting = "trajectory"
    singleton: Singleton = "zero"
    gamma: float = 0.95
    omega: float = 1.0

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not masked in: the same on all tokens of a turn."""
        turns = batch.turns
        assert turns is not None
        per_turn = gigpo_advantage(
            turns.reward,
            turns.group,
            turns.traj,
            turns.anchor,
            gamma=self.gamma,
            omega=self.omega,
            normalise=self.normalise,
            weighting=self.weighting,
            singleton=self.singleton,
        )
        return turns.on_tokens(per_turn, batch)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Raises:
    ConfigError: a normalisation that GiGPO does not have.
    """
    base = recipe.algorithm
    if base.normalise not in ("std", "mean"):
        raise ConfigError(f"the plug-in gigpo has algorithm.normalise std or mean, not {base.normalise}")
    return Parts(
        advantage=GigpoAdvantage(base.normalise, base.weighting, base.singleton, settings.gamma, settings.omega)
    )


PLUGIN = Plugin(
    name="gigpo",
    summary="one reward at the end says nothing about single steps",
    source="Feng et al. 2025, arXiv 2505.10978",
    settings=Settings,
    build=build,
    neutral={"omega": 0.0},
    groups=True,
)
