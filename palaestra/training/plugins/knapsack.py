"""Knapsack: rollouts go where a group is likely to have a gradient (Li et al., arXiv 2509.25849).

    maximise  sum_q (1 - p_q^N_q - (1-p_q)^N_q) p_q (1-p_q)^2    over integers  low <= N_q <= high,  sum_q N_q = budget

`p_q` is the task's success rate when it was last played; `palaestra.training.knapsack` solves it exactly. A task that
was never played has `rollout.group_size` rollouts. The budget is that of the base, `groups * group_size`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from palaestra.config import BelowOne, Config, Fraction, NonNegativeFloat, Recipe
from palaestra.envs.tasks import Task
from palaestra.errors import ConfigError
from palaestra.training.knapsack import allocate, mixed
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Allocation, Moment, Parts
from palaestra.training.success_rates import SuccessRates
from palaestra.training.task_key import key_of


class Settings(Config, frozen=True, kw_only=True):
    """Of the allocation. Bounds and rates are the paper's; what is not in it is off."""

    low: Annotated[int, msgspec.Meta(ge=2)] = 2
    """Fewest rollouts of a task; 2, as one alone has nothing to be compared with."""
    high: Annotated[int, msgspec.Meta(ge=2)] = 128
    """Most rollouts of a task."""
    share: Fraction = 1.0
    """Part of the episodes above `low` that is allocated; the rest is the same for every task. 0 gives every task
    `rollout.group_size`, as without the plug-in."""
    memory: BelowOne = 0.0
    """Weight of earlier visits in a task's rate, per visit; 0 takes the last one only."""
    least_gain: NonNegativeFloat = 0.0
    """Of one more rollout; what gains no more than that goes to tasks with rate 0. With 0 these have spare rollouts
    only where all others have `high`."""
    reward_low: float = 0.0
    """Reward that counts as a failure; what is between `reward_low` and `reward_high` is a success in part."""
    reward_high: float = 1.0
    """Reward that counts as a success."""


@dataclass(frozen=True, slots=True)
class KnapsackAllocator:
    """Shares an iteration's episodes out by the rates of the tasks' last visits."""

    rates: SuccessRates
    low: int = 2
    high: int = 128
    share: float = 1.0
    least_gain: float = 0.0

    def __call__(self, tasks: Sequence[Task], size: int, moment: Moment) -> Allocation:
        """`size` for tasks never seen; logs the chance of a mixed group among the others, and their mean rate."""
        found = [self.rates.rate(key_of(task)) for task in tasks]
        known = [rate for rate in found if rate is not None]
        low = size - math.floor(self.share * (size - self.low))
        given = allocate(known, size * len(known), low, self.high, self.least_gain)
        sizes = iter(given)
        chances = [mixed(count, rate) for count, rate in zip(given, known, strict=True)]
        return Allocation(
            [size if rate is None else next(sizes) for rate in found],
            {
                "knapsack_known": len(known) / len(tasks),
                "knapsack_rate": _mean(known),
                "knapsack_mixed": _mean(chances),
            },
        )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Raises:
    ConfigError: the group size is outside the bounds, or the rewards have no range.
    """
    size = recipe.rollout.group_size
    if not settings.low <= size <= settings.high:
        raise ConfigError(
            f"rollout.group_size {size}: the plug-in knapsack allocates {settings.low} to {settings.high} episodes a "
            "task, so their mean must be within; change it or algorithm.settings.knapsack.low and high"
        )
    if not settings.reward_low < settings.reward_high:
        raise ConfigError("algorithm.settings.knapsack: reward_low must be below reward_high")
    if settings.share == 0:
        return Parts()
    rates = SuccessRates(settings.memory, settings.reward_low, settings.reward_high)
    allocator = KnapsackAllocator(rates, settings.low, settings.high, settings.share, settings.least_gain)
    return Parts(allocator=allocator, trackers={"knapsack": rates})


PLUGIN = Plugin(
    name="knapsack",
    summary="rollouts wasted on tasks that are always or never solved: more where a group is likely to be mixed",
    source="Li et al. 2025, arXiv 2509.25849",
    settings=Settings,
    build=build,
    neutral={"share": 0.0},
    groups=True,
)
