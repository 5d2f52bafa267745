"""80/20: only forking tokens, those the policy was least sure of, teach (Wang et al., arXiv 2506.01939).

    tau  = (1 - rho)-quantile of H_old over the policy tokens of the optimiser step
    loss = 1[H_old >= tau] * loss

Tokens as uncertain as `tau` all stay, so that ties keep a few more. Paper and TRL divide by all tokens, which makes the
step smaller by the dropped part; `denominator: kept` divides by the tokens that stay, by whatever aggregation there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.config import Config, Fraction, Recipe
from palaestra.training.aggregate import Mode, token_weights
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Gated, Moment, Need, Parts, Tokens
from palaestra.training.terms import constant_of


class Settings(Config, frozen=True, kw_only=True):
    """Which tokens stay."""

    rho: Fraction = 0.2
    """Part of the policy tokens that stay, at least one; the paper's. 1 is the algorithm below."""
    denominator: Literal["all", "kept"] = "all"
    """What the loss is divided by: all policy tokens, as in paper and TRL, or those that stay, as if the others were
    masked out (as in the port of Lp-Reg's authors). The same up to a factor under `token-mean`; under the others rows
    or turns without a fork stop counting."""


@dataclass(frozen=True, slots=True)
class Forks:
    """Keeps the most uncertain tokens of a step."""

    settings: Settings
    aggregation: Mode
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"old_entropy"})

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Weights 0 and 1, or 0 and the ratio of the denominators."""
        assert tokens.old_entropy is not None
        entropy = tokens.old_entropy.detach()
        if not len(entropy):
            return Gated(log={"fork_threshold": 0.0, "fork_fraction": 0.0})
        threshold = upper(entropy, self.settings.rho)
        kept = entropy >= threshold
        weight = kept.double()
        if self.settings.denominator == "kept":
            weight = weight * self._enlarged(tokens, kept, batch)
        log = {"fork_threshold": float(threshold), "fork_fraction": float(kept.double().mean())}
        return Gated(weight=weight, log=log)

    def _enlarged(self, tokens: Tokens, kept: Tensor, batch: Batch) -> Tensor:
        """[P] float64: each token's weight in the loss with the others masked out, over that with all."""
        assert tokens.row is not None
        chosen = torch.zeros(len(batch.ids), dtype=torch.bool)
        chosen[tokens.row.cpu()] = True
        every = batch.mask & chosen[:, None]
        stays = every.masked_scatter(every, kept.cpu())
        few, all_ = (
            token_weights(m, self.aggregation, step_id=batch.step_id, traj=batch.traj, constant=self.constant)[every]
            for m in (stays, every)
        )
        return (few / all_).to(kept.device)


def upper(values: Tensor, part: float) -> Tensor:
    """The value at or above which the highest `part` of `values` [P], P > 0, lies: the next one of them above the
    interpolated quantile, so that what reaches either is the same."""
    place = math.ceil((1 - part) * (len(values) - 1) - 1e-9)
    return values.kthvalue(place + 1).values


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The gate; nothing with `rho` 1."""
    if settings.rho == 1:
        return Parts()
    aggregation = recipe.algorithm.aggregation
    return Parts(gates=(Forks(settings, aggregation, constant_of(recipe, aggregation)),))


PLUGIN = Plugin(
    name="entropy_topk",
    summary="most tokens only fill in what a few decided: the uncertain 20 %, where episodes fork, learn alone",
    source="Wang et al. 2025, arXiv 2506.01939",
    settings=Settings,
    build=build,
    neutral={"rho": 1.0},
)
