"""Truncated importance sampling between the engine that sampled and the learner (Yao et al. 2025, off-policy-rl note).

w = min(exp(old - rollout), cap)    of tokens, or of whole rows       (17), (18) of the specification's base
w = exp(old - rollout) inside `range`, 0 outside                      (19), masked
loss = w * loss                                                       (20)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palaestra.config import Config, NonNegativeOrInfinite, PositiveFloat, Recipe
from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.importance import Level, effective_sample_size, truncated_importance
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, Gated, Moment, Need, Parts, Tokens


class Settings(Config, frozen=True, kw_only=True):
    """What the weight is."""

    cap: NonNegativeOrInfinite = 2.0
    """Ratios are cut off here, 2 to 5 in use; `.inf` leaves them, 0 switches the correction off."""
    level: Level = "token"
    """Ratio of each token, of the whole row (`sequence`), or the row's geometric mean, which is never cut off."""
    range: tuple[PositiveFloat, PositiveFloat] | None = None
    """Instead of cutting off: ratios outside (low, high) get weight 0."""
    normalise: bool = False
    """Divide by the mean weight of the optimiser step."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The weights as a gate."""

    settings: Settings
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Of old policy and engine; the present policy plays no part."""
        assert tokens.row is not None
        assert batch.old_logprob is not None
        chosen = torch.zeros(len(batch.ids), dtype=torch.bool)
        chosen[tokens.row] = True
        mask = batch.mask & chosen[:, None]
        options = self.settings
        weight = truncated_importance(
            batch.old_logprob,
            batch.rollout_logprob,
            mask,
            level=options.level,
            cap=options.cap,
            mask_range=options.range,
            normalise=options.normalise,
        )
        mean = float(weight[mask].mean()) if len(tokens.row) else 1.0
        size = effective_sample_size(weight, mask)
        return Gated(weight=weight[mask], log={"mismatch_weight": mean, "mismatch_sample_size": size})


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Raises:
    ConfigError: the engine's log-probs are taken for the learner's, so that there is nothing to correct.
    """
    if settings.cap == 0:
        return Parts()
    if recipe.learner.old_logprobs == "rollout":
        raise ConfigError("the plug-in mismatch compares engine and learner, so it needs learner.old_logprobs=learner")
    return Parts(gates=(Mismatch(settings),))


PLUGIN = Plugin(
    name="mismatch",
    summary="the engine that samples and the learner disagree about probabilities",
    source="Yao et al. 2025, off-policy-rl note",
    settings=Settings,
    build=build,
    neutral={"cap": 0.0},
)
