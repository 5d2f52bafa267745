"""UloRL's mastered-token masking: what a policy gets right anyway, and is sure of, is not taught again (UloRL,
arXiv 2507.19766, dynamic masking of well-mastered positive tokens).

    loss_t = 0   where episode i succeeded,  pi(t) >= tau  and  mean over its policy tokens of H < sigma

by the policy before the optimiser step. Such tokens have a tiny gradient each, but they are most of a good episode, and
together they take the entropy away. Denominators count them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat, Recipe
from palaestra.training.batch import Batch
from palaestra.training.first import First, mean_entropy
from palaestra.training.numbering import number
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Gated, Moment, Need, Parts, Tokens


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the paper's."""

    tau: NonNegativeFloat = 0.99
    """A token this likely is mastered; above 1 none is."""
    sigma: NonNegativeFloat = 0.2
    """Entropy below which an episode's mastered tokens are masked; 0 switches all off."""
    unit: Literal["nats", "first"] = "nats"
    """Of `sigma`: nats, tuned on mathematics, or parts of the mean entropy of the run's first iteration."""


@dataclass(frozen=True, slots=True)
class MasteredTokens:
    """Drops them."""

    settings: Settings
    first: First
    requires: frozenset[Need] = frozenset({"old_entropy"})

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Weights 0 and 1."""
        assert tokens.row is not None
        sigma = self.settings.sigma
        if self.settings.unit == "first":
            sigma *= self.first.of(mean_entropy(batch)) or 0.0
        traj = batch.traj.to(tokens.row.device)[tokens.row]
        sure = by_trajectory(tokens.entropy.detach(), traj) < sigma
        likely = tokens.logprob.detach() >= (math.log(self.settings.tau) if self.settings.tau else -math.inf)
        mastered = batch.succeeded.to(traj.device)[tokens.row] & sure & likely
        fraction = float(mastered.double().mean()) if len(traj) else 0.0
        return Gated(weight=(~mastered).double(), log={"mastered_fraction": fraction})


def by_trajectory(values: Tensor, traj: Tensor) -> Tensor:
    """[P] float64: the mean of `values` [P] over each token's trajectory."""
    _, owner, size = number(traj)
    total = torch.zeros(len(size), dtype=torch.float64, device=values.device).index_add(0, owner, values.double())
    return (total / size)[owner]


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The gate; nothing where no token can be mastered."""
    if settings.tau > 1 or settings.sigma == 0:
        return Parts()
    first = First()
    trackers = {"mpt_mask": first} if settings.unit == "first" else {}
    return Parts(gates=(MasteredTokens(settings, first),), trackers=trackers)


PLUGIN = Plugin(
    name="mpt_mask",
    summary="teaching what is mastered again takes the entropy of a policy that is sure of itself",
    source="UloRL 2025, arXiv 2507.19766",
    settings=Settings,
    build=build,
    neutral={"sigma": 0.0},
)
