"""SPO: single-stream policy optimisation (Xu and Ding, arXiv 2509.13232): a baseline that remembers, not a group.

    A_i = (r_i - V(q_i) - mean) / (std + 1e-8)    V before this visit; mean and std (n-1) over the iteration's episodes
    w_q = sqrt(V_q (1 - V_q)) + 0.05              tasks are drawn without replacement in proportion to w

`V` is the task's value in `palaestra.training.value_tracker`. No episode waits for others of its group, and
`rollout.group_size=1` is enough; with more, all episodes of a task have the same V, and one visit counts them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import torch
from torch import Tensor

from palaestra.config import Config, PositiveFloat, Recipe
from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.places import Places
from palaestra.training.plugin import Plugin
from palaestra.training.prioritised import Prioritised
from palaestra.training.seams import Parts
from palaestra.training.task_key import keys_of
from palaestra.training.value_report import ValueReport
from palaestra.training.value_tracker import ValueTracker

TRACKER, EPS = "spo_values", 1e-8
Rate = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]


class Settings(Config, frozen=True, kw_only=True):
    """Of the tracker and its two uses; the defaults are the paper's."""

    baseline: bool = True
    """The advantage is r - V, standardised over the iteration; false leaves the base's."""
    sampling: bool = True
    """Tasks whose outcome is uncertain come more often; false leaves the walk through the suite."""
    d_half: Annotated[float, msgspec.Meta(gt=0.0)] = 0.06
    """Change of the log-prob of a task's previous response, in nats a token, that halves the weight of what is known of
    the task; `.inf` forgets at `rho_max` whatever changed, and neither keeps nor scores responses."""
    rho_min: Rate = 0.875
    """Least weight that earlier outcomes keep at a visit."""
    rho_max: Rate = 0.96
    """Most of it; 1 / (1 - rho_max) bounds how many visits a value remembers. 1 forgets nothing."""
    floor: PositiveFloat = 0.05
    """Added to the weight of every task, so that each can come."""
    reward_low: float = 0.0
    """Return that counts as 0. The tracker clips what lies outside, the advantage does not."""
    reward_high: float = 1.0
    """Return that counts as 1."""


@dataclass(frozen=True, slots=True)
class SpoAdvantage:
    """The outcome against the task's value; the same on all tokens of an episode."""

    values: ValueTracker

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not masked in; what filters left out has no part in mean and deviation."""
        outcome = self.values.outcomes(batch)
        value = torch.tensor([self.values.value(key) for key in keys_of(batch)], dtype=torch.float64)
        kept = torch.zeros(len(outcome), dtype=torch.bool)
        kept[batch.traj[batch.rows]] = True
        return torch.where(batch.mask, standardised(outcome - value, kept)[batch.traj][:, None], 0.0).float()


def standardised(surprise: Tensor, kept: Tensor) -> Tensor:
    """`surprise` [N] with mean 0 and standard deviation 1 over `kept` [N]; exactly 0 where all of those are equal."""
    part = surprise[kept]
    if len(part) < 2 or bool((part == part[0]).all()):
        return torch.zeros_like(surprise)
    return (surprise - part.mean()) / (part.std() + EPS)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Raises:
    ConfigError: settings that contradict each other.
    """
    if not settings.rho_min <= settings.rho_max:
        raise ConfigError("algorithm.settings.spo_tracker: rho_min must not be above rho_max")
    if not settings.reward_low < settings.reward_high:
        raise ConfigError("algorithm.settings.spo_tracker: reward_low must be below reward_high")
    if not (settings.baseline or settings.sampling):
        return Parts()
    values = ValueTracker(
        TRACKER, settings.d_half, settings.rho_min, settings.rho_max, settings.reward_low, settings.reward_high
    )
    places = Places()
    return Parts(
        advantage=SpoAdvantage(values) if settings.baseline else None,
        shapers=(ValueReport(values),),
        chooser=Prioritised(values, places, settings.floor) if settings.sampling else None,
        trackers={TRACKER: values, "spo_places": places} if settings.sampling else {TRACKER: values},
    )


PLUGIN = Plugin(
    name="spo_tracker",
    summary="groups cost rollouts and wait for their slowest: a value per task is the baseline, and picks tasks",
    source="Xu and Ding 2025, arXiv 2509.13232",
    settings=Settings,
    build=build,
    neutral={"baseline": False, "sampling": False},
)
