"""An entropy bonus whose coefficient looks after itself (Skywork-OR1, arXiv 2505.22312; TRL).

    alpha_k = c_k  if H_k <= target,  else 0                 what iteration k applies: loss - alpha_k mean H
    c_k+1   = clip(c_k + step, lowest, highest)  if H_k <= target,  else clip(c_k - step, lowest, highest)

`H_k` is the policy's mean token entropy before iteration k. A fixed coefficient is too small to stop a collapse, or
drives entropy up for ever; here the bonus is off while entropy is healthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from palaestra.config import Config, NonNegativeFloat, PositiveFloat, Recipe
from palaestra.errors import ConfigError
from palaestra.training.aggregate import Mode
from palaestra.training.batch import Batch
from palaestra.training.first import First, mean_entropy
from palaestra.training.plugin import Plugin
from palaestra.training.seams import BoundTerm, Moment, Need, Parts, Values
from palaestra.training.terms import constant_of


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: TRL's, but for the target, 0.2 nats there, which by its own advice belongs near the run's start."""

    target: PositiveFloat = 1.0
    """Entropy that is held."""
    unit: Literal["first", "nats"] = "first"
    """Of `target`: parts of the mean entropy of the run's first iteration, or nats."""
    step: NonNegativeFloat = 0.005
    """What the coefficient moves by in an iteration."""
    start: NonNegativeFloat = 0.0
    """The coefficient of the first iteration."""
    lowest: NonNegativeFloat = 0.0
    """It never falls below."""
    highest: NonNegativeFloat = 1.0
    """It never rises above; 0 switches all off."""
    aggregation: Literal["recipe", "token-mean", "traj-turn-token"] = "token-mean"
    """How the bonus is averaged; `recipe`: as the policy loss is."""


@dataclass(slots=True)
class Coefficient:
    """The controller, as a tracker."""

    settings: Settings
    value: float
    first: First = field(default_factory=First)
    requires: frozenset[Need] = frozenset({"old_entropy", "scored"})

    def low(self, batch: Batch) -> bool:
        """Whether the policy's entropy is at or below the target; an iteration without tokens is not."""
        entropy = mean_entropy(batch)
        unit = self.first.of(entropy) if self.settings.unit == "first" else 1.0
        return entropy is not None and unit is not None and entropy <= self.settings.target * unit

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Move by a step."""
        if mean_entropy(batch) is not None:
            step = self.settings.step if self.low(batch) else -self.settings.step
            self.value = min(max(self.value + step, self.settings.lowest), self.settings.highest)

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"value": self.value, "first": self.first.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.value, self.first.value = state["value"], state["first"]


@dataclass(frozen=True, slots=True)
class AdaptiveBonus:
    """`- alpha_k * entropy`; its metric is `alpha_k` times the entropy."""

    coefficient: Coefficient
    aggregation: Mode
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"entropy_grad", "old_entropy", "scored"})
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm:
        """Fix `alpha_k`."""
        alpha = self.coefficient.value if self.coefficient.low(batch) else 0.0
        value = lambda tokens: Values(alpha * tokens.entropy)  # noqa: E731
        log = {"adaptive_entropy_coeff": alpha}
        return BoundTerm("adaptive_entropy", -1.0, self.aggregation, value, self.constant, log)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The bonus and its controller; nothing with `highest` 0.

    Raises:
        ConfigError: `start` is not within the range.
    """
    if settings.highest == 0:
        return Parts()
    if not settings.lowest <= settings.start <= settings.highest:
        raise ConfigError(
            "algorithm.settings.adaptive_entropy.start: between lowest and highest "
            f"({settings.lowest} to {settings.highest}), not {settings.start}"
        )
    mode = recipe.algorithm.aggregation if settings.aggregation == "recipe" else settings.aggregation
    coefficient = Coefficient(settings, settings.start)
    term = AdaptiveBonus(coefficient, mode, constant_of(recipe, mode))
    return Parts(terms=(term,), trackers={"adaptive_entropy": coefficient})


PLUGIN = Plugin(
    name="adaptive_entropy",
    summary="a fixed entropy bonus is too weak against a collapse, or drives entropy up for ever",
    source="Skywork-OR1 2025, arXiv 2505.22312; TRL",
    settings=Settings,
    build=build,
    neutral={"highest": 0.0},
)
