"""What corrects for tokens that older weights sampled."""

from __future__ import annotations

import msgspec

from palaestra.config import AlgorithmConfig, Recipe

PLUGIN = "mismatch"


def corrected(recipe: Recipe) -> AlgorithmConfig:
    """The algorithm with truncated importance sampling, where the recipe asks for it and tokens may be of older
    weights; as it is, where it has that already, or takes the engine's log-probs for the old policy's (which corrects
    in the ratio: not both)."""
    trainer, algorithm = recipe.trainer, recipe.algorithm
    stale = trainer.mode == "async" and (trainer.staleness > 0 or trainer.quorum < 1)
    needless = PLUGIN in algorithm.plugins or recipe.learner.old_logprobs == "rollout"
    if not (stale and trainer.correct) or needless:
        return algorithm
    return msgspec.structs.replace(algorithm, plugins=(*algorithm.plugins, PLUGIN))
