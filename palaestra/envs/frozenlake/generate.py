"""Maps from seeds, with splits that cannot overlap."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count

from palaestra.envs.frozenlake.lake import Lake, distance, rows
from palaestra.envs.grids import canonical
from palaestra.envs.params import split_of
from palaestra.envs.tasks import SPLITS
from palaestra.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Level:
    """What the lakes are like."""

    side: int
    slippery: bool
    least: int
    """Fewest steps from start to goal at least."""
    max_turns: int
    """Steps after which an episode is cut off; of slippery lakes Gymnasium's limit."""


LEVELS = {
    "4x4": Level(4, False, 3, 20),
    "8x8": Level(8, False, 6, 40),
    "slippery-4x4": Level(4, True, 3, 100),
    "slippery-8x8": Level(8, True, 6, 200),
}
HOLES = 0.2
"""Share of the cells that are holes, as in Gymnasium's random maps."""


@lru_cache(4096)
def generate(level: str, split: str, index: int) -> Lake:
    """Lake number `index` of a split; always the same one, and the same slippery or not.

    Which split a map belongs to is decided by a hash of it, turned and mirrored as you like.

    Raises:
        UnknownNameError: no such level or split.
    """
    if level not in LEVELS:
        raise UnknownNameError("level of frozenlake", level, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of frozenlake", split, SPLITS)
    wanted = LEVELS[level]
    return replace(_generate(wanted.side, wanted.least, split, index), slippery=wanted.slippery)


@lru_cache(4096)
def _generate(side: int, least: int, split: str, index: int) -> Lake:
    rng = random.Random(f"frozenlake/{side}/{split}/{index}")
    for _ in count():
        start, goal = rng.sample(range(side * side), 2)
        holes = frozenset(cell for cell in range(side * side) if rng.random() < HOLES) - {start, goal}
        lake = Lake(side, side, holes, start, goal)
        if (distance(lake) or 0) >= least and split_of(canonical(rows(lake))) == split:
            return lake
    raise AssertionError("unreachable: count() does not end")
