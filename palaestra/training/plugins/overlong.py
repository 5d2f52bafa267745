"""Overlong shaping: an episode loses reward as it comes near the longest that it may be (Yu et al. 2025, DAPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.config import Config, Fraction, NonNegativeFloat, Recipe
from palaestra.training.batch import Batch
from palaestra.training.branches import whole
from palaestra.training.numbering import number
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Moment, Parts

Unit = Literal["tokens", "turns"]


class Settings(Config, frozen=True, kw_only=True):
    """Which episodes are too long."""

    penalty: NonNegativeFloat = 1.0
    """Subtracted from the return of an episode of the greatest length, and part of it shortly before; 0 for none. Give
    it the size of the rewards."""
    limit: NonNegativeFloat = 0.0
    """The longest episode, in `unit`; 0 takes what the recipe admits: `max_turns`, times `max_tokens` for tokens."""
    buffer: Fraction = 0.2
    """Last part of the limit, over which the penalty grows from 0: 4,096 of 20,480 tokens in DAPO."""
    unit: Unit = "tokens"
    """What length is counted in; observations never count."""


@dataclass(frozen=True, slots=True)
class OverlongPenalty:
    """`-weight * clip((length - (limit - buffer)) / buffer, 0, 1)` of every episode.

    Length counts what the policy sampled: that an observation was long is not the agent's doing.
    """

    limit: float
    """The longest episode, in `unit`."""
    buffer: float
    """Length before `limit` over which the penalty grows."""
    weight: float = 1.0
    """Penalty at `limit` and beyond."""
    unit: Unit = "tokens"

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[N] float64, one per trajectory, at most 0."""
        batch = whole(batch)
        row, column = batch.mask.nonzero(as_tuple=True)
        owner = batch.traj[row]
        if self.unit == "turns":
            owner = number(torch.stack((owner, batch.step_id[row, column]), 1)).known[:, 0]
        count = int(batch.traj.max()) + 1 if len(batch.traj) else 0
        over = torch.bincount(owner, minlength=count).double() - (self.limit - self.buffer)
        part = (over / self.buffer).clamp(0, 1) if self.buffer else (over > 0).double()
        return -self.weight * part


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The penalty, its limit taken from the recipe where it has none."""
    if not settings.penalty:
        return Parts()
    turns = recipe.tasks.max_turns
    longest = turns * recipe.agent.max_tokens if settings.unit == "tokens" else turns
    limit = settings.limit or longest
    return Parts(rewards=(OverlongPenalty(limit, settings.buffer * limit, settings.penalty, settings.unit),))


PLUGIN = Plugin(
    name="overlong",
    summary="an episode that is cut off at the limit is noise in the reward; a slope before it is not",
    source="Yu et al. 2025, arXiv 2503.14476",
    settings=Settings,
    build=build,
    neutral={"penalty": 0.0},
)
