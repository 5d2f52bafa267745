"""The best policy, by dynamic programming backwards from the last step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.frozenlake.lake import ORDER, Lake, outcomes

MOST_STEPS = 200
"""Steps that are looked ahead; where more are left, one goes as with so many."""
HURRY = 0.99
"""Worth of the goal one step later, on ice that is not slippery: the shortest way is the best."""


def advise(lake: Lake, cell: int, left: int) -> str:
    """The direction that reaches the goal most likely within the `left` steps that are left; the soonest on ice that is
    not slippery."""
    return ORDER[int(policy(lake)[min(left, MOST_STEPS) - 1, cell])]


@lru_cache(64)
def policy(lake: Lake) -> NDArray[np.int8]:
    """Index into `ORDER`, by (steps left - 1, cell)."""
    cells = range(lake.width * lake.height)
    to = np.array([[outcomes(lake, cell, name) for cell in cells] for name in ORDER])  # direction, cell, outcome
    discount = 1.0 if lake.slippery else HURRY
    worth = np.zeros(len(cells))  # of each cell with so many steps left
    worth[lake.goal] = 1.0
    final, chosen = sorted({*lake.holes, lake.goal}), np.zeros((MOST_STEPS, len(cells)), np.int8)
    last = worth[final]
    for left in range(MOST_STEPS):
        values = discount * worth[to].mean(axis=2)
        chosen[left] = values.argmax(axis=0)
        worth = values.max(axis=0)
        worth[final] = last
    return chosen
