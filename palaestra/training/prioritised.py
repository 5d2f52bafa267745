"""Tasks whose outcome is uncertain come more often (SPO, Xu and Ding 2025, arXiv 2509.13232).

w_q = sqrt(V_q (1 - V_q)) + floor        drawn without replacement in proportion to w
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.tasks import Task
from palaestra.seeds import derive_seed
from palaestra.training.places import Places
from palaestra.training.sampling import in_turn
from palaestra.training.seams import Choice, Moment
from palaestra.training.value_tracker import PRIOR, ValueTracker


def weight(value: float, floor: float = 0.05) -> float:
    """`w` of a task with this value."""
    return math.sqrt(value * (1 - value)) + floor


def weighted_order(weights: NDArray[np.float64], seed: int, *parts: str | int) -> NDArray[np.int64]:
    """All positions [N], in the order in which they are drawn one after the other without replacement, each time in
    proportion to the weights [N] (above 0) of those that are left. The same for the same `seed` and `parts`.

    Position q waits for an exponentially distributed time with rate `weights[q]`; the order is that of the times.
    """
    waits = np.random.default_rng(derive_seed(seed, *parts)).standard_exponential(len(weights)) / weights
    return np.argsort(waits, kind="stable")


@dataclass(frozen=True, slots=True)
class Prioritised:
    """Draws tasks by how uncertain their outcome is."""

    values: ValueTracker
    places: Places
    floor: float = 0.05

    def __call__(self, suite: Sequence[Task], count: int, moment: Moment, taken: Collection[int] = ()) -> Choice:
        """Tasks never played have the prior's weight, the highest of all."""
        weights = np.full(len(suite), weight(PRIOR[0] / sum(PRIOR), self.floor))
        for place, key in self.places.items():
            weights[place] = weight(self.values.value(key), self.floor)
        order = weighted_order(weights, moment.seed, "prioritised tasks", moment.iteration, len(taken))
        chosen = in_turn(order, count, taken)
        self.places.choose(suite, chosen)
        effective = float(weights.sum() ** 2 / (weights**2).sum())
        return Choice(chosen, {"tasks_known": float(len(self.places)), "tasks_effective": effective})
