"""Reference resets (ProRL, arXiv 2505.24864; Scaling Up RL, arXiv 2507.12507): the KL's anchor moves with the policy.

ref <- mix * policy + (1 - mix) * ref        at the end of an iteration, every so often, when the KL has become large,
                                             or when validation has stalled; the optimiser may begin anew

Right after a reset with `mix` 1 the KL is exactly 0. A smaller `mix` is the soft variant (TRL has 0.6 every 512 steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from palaestra.config import Config, NonNegative, NonNegativeFloat, Recipe
from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.kl import kl_estimate
from palaestra.training.plugin import Plugin
from palaestra.training.providers import Renewal
from palaestra.training.seams import Moment, Need, Parts


class Settings(Config, frozen=True, kw_only=True):
    """When. The papers' schedule is not established: without any of the three the reference stays."""

    every: NonNegative = 0
    """Iterations between resets; 0 for never."""
    kl_above: NonNegativeFloat = 0.0
    """Reset after an iteration whose mean KL (k3) was larger; 0 for never."""
    stalled: NonNegative = 0
    """Reset when this many evaluations in a row were no better than the best before; 0 for never."""
    mix: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    """Share of the policy in the new reference; 1 copies it."""
    optimiser: bool = True
    """The optimiser forgets its moments."""


@dataclass(slots=True)
class Resets:
    """Reference manager, and tracker of what it decides by."""

    settings: Settings
    best: float = -1.0
    """Success rate of the best evaluation since the last reset."""
    bad: int = 0
    """Evaluations since that one."""
    requires: frozenset[Need] = frozenset({"old_logprob"})
    """Not the reference: there must be somebody else who reads it."""

    def __call__(self, batch: Batch, moment: Moment) -> Renewal | None:
        """By the three rules."""
        options = self.settings
        regular = options.every and (moment.iteration + 1) % options.every == 0
        far = options.kl_above and mean_kl(batch) > options.kl_above
        if not (regular or far or (options.stalled and self.bad >= options.stalled)):
            return None
        self.best, self.bad = -1.0, 0
        return Renewal(options.mix, options.optimiser)

    def evaluated(self, iteration: int, success: float) -> None:
        """Count evaluations that are no better than the best."""
        self.best, self.bad = (success, 0) if success > self.best else (self.best, self.bad + 1)

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Nothing: all is in the call."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.best, self.bad = float(state["best"]), int(state["bad"])


def mean_kl(batch: Batch) -> float:
    """Mean k3 of the iteration's old policy to the reference; 0 without any token."""
    assert batch.old_logprob is not None
    assert batch.ref_logprob is not None
    inside = batch.trained
    if not bool(inside.any()):
        return 0.0
    return float(kl_estimate(batch.old_logprob[inside].double(), batch.ref_logprob[inside].double()).mean())


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Raises:
    ConfigError: it waits for evaluations that there are none of.
    """
    if not (settings.every or settings.kl_above or settings.stalled):
        return Parts()
    if settings.stalled and not (recipe.tasks.validation and recipe.evaluation.every):
        raise ConfigError(
            "algorithm.settings.ref_reset.stalled waits for evaluations: set tasks.validation and evaluation.every"
        )
    resets = Resets(settings)
    return Parts(reference=resets, trackers={"ref_reset": resets})


PLUGIN = Plugin(
    name="ref_reset",
    summary="a KL to the model before training stops long training: the reference has to follow",
    source="ProRL 2025, arXiv 2505.24864; soft: TRL",
    settings=Settings,
    build=build,
    neutral={"every": 0, "kl_above": 0.0, "stalled": 0},
)
