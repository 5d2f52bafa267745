"""Entrocraft: entropy is steered by the sign of what learns (arXiv 2604.26326).

    s = 1[H > high] - 1[H < low],   H the policy's mean entropy before the iteration's first update
    a row stays if s A >= 0

Reward sharpens, punishment flattens: above the band only good episodes teach, below it only bad ones, inside it all.
The band falls over training. An iteration that loses all rows has no update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat, Recipe
from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.first import First, mean_entropy
from palaestra.training.numbering import number
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Moment, Need, Parts, Shaped


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the paper's band, 0.6 to 0.7 nats falling to 0.4 to 0.5, over the first one's middle."""

    start: tuple[NonNegativeFloat, NonNegativeFloat] = (0.92, 1.08)
    """Lower and upper end of the band in the first iteration."""
    end: tuple[NonNegativeFloat, NonNegativeFloat] = (0.62, 0.77)
    """In the last."""
    unit: Literal["first", "nats"] = "first"
    """Of both: parts of the mean entropy of the run's first iteration, or nats."""
    schedule: Literal["linear", "cosine", "none"] = "linear"
    """From start to end; `none`: there is no band."""
    credit: Literal["advantage", "score"] = "advantage"
    """Outside the band: rows keep their advantages; or as in the released code it is the return where that has the
    wanted sign, and 0 where not, with all rows in the denominators. Then returns must have both signs."""


def band(settings: Settings, moment: Moment) -> tuple[float, float]:
    """Lower and upper end, before they are multiplied by the unit."""
    part = min(1.0, moment.iteration / max(1, moment.total - 1))
    if settings.schedule == "cosine":
        part = (1 - math.cos(math.pi * part)) / 2
    (low, high), (last_low, last_high) = settings.start, settings.end
    return low + (last_low - low) * part, high + (last_high - high) * part


@dataclass(frozen=True, slots=True)
class Band:
    """Where the policy's entropy is: above the band, below it or in it."""

    settings: Settings
    first: First

    def sign(self, batch: Batch, moment: Moment) -> tuple[int, dict[str, float | None]]:
        """s, and the band in nats for the metrics."""
        entropy = mean_entropy(batch)
        unit = self.first.of(entropy) if self.settings.unit == "first" else 1.0
        low, high = (end * (unit or 0.0) for end in band(self.settings, moment))
        s = 0 if entropy is None else int(entropy > high) - int(entropy < low)
        return s, {"entrocraft_low": low, "entrocraft_high": high, "entrocraft_sign": float(s)}


@dataclass(frozen=True, slots=True)
class WantedSign:
    """The selector: drops the rows of episodes whose advantage, summed over their tokens, has the other sign."""

    band: Band

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[B] bool."""
        assert batch.advantage is not None
        own = torch.where(batch.trained, batch.advantage, 0.0).double().sum(1)
        traj = number(batch.traj).number
        return self.band.sign(batch, moment)[0] * torch.zeros_like(own).index_add(0, traj, own)[traj] >= 0


@dataclass(frozen=True, slots=True)
class Credit:
    """Logs the band, and outside it gives the released code's advantages if it is asked to."""

    band: Band
    requires: frozenset[Need] = frozenset({"old_entropy", "scored"})

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """Advantages as they are, or one-sided returns."""
        assert batch.advantage is not None
        sign, log = self.band.sign(batch, moment)
        if self.band.settings.credit == "advantage" or sign == 0:
            return Shaped(batch.advantage, log)
        return Shaped(torch.where(sign * batch.reward > 0, batch.reward, 0.0)[:, None].expand(batch.shape), log)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Raises: ConfigError, where the band is empty at one of its ends."""
    if settings.schedule == "none":
        return Parts()
    for name, (low, high) in {"start": settings.start, "end": settings.end}.items():
        if low > high:
            raise ConfigError(f"algorithm.settings.entrocraft.{name}: from low to high, not ({low}, {high})")
    found = Band(settings, First())
    selectors = (WantedSign(found),) if settings.credit == "advantage" else ()
    return Parts(shapers=(Credit(found),), selectors=selectors, trackers={"entrocraft": found.first})


PLUGIN = Plugin(
    name="entrocraft",
    summary="entropy falls where successes teach and rises where failures do: the sign that keeps a band is chosen",
    source="arXiv 2604.26326",
    settings=Settings,
    build=build,
    neutral={"schedule": "none"},
)
