"""Puzzles from seeds at named levels, each made from its solution, with splits that cannot overlap."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Literal

from palaestra.envs.countdown.puzzle import Numbers, Puzzle, Use, apply, operations
from palaestra.envs.params import split_of
from palaestra.envs.tasks import SPLITS
from palaestra.errors import UnknownNameError

Form = Literal["steps", "answer"]
LARGE = (25, 50, 75, 100)
"""The four large numbers of the television game."""


@dataclass(frozen=True, slots=True)
class Level:
    """What the puzzles are like."""

    form: Form
    """One operation a turn, or one expression."""
    use: Use
    count: tuple[int, int]
    """How many numbers there are, at least and at most."""
    largest: int
    """Numbers are drawn from 1 to it; 0 draws two large and four small ones, as in the television game."""
    target: tuple[int, int]


LEVELS = {
    "steps-3": Level("steps", "all", (3, 3), 20, (2, 100)),
    "steps-4": Level("steps", "all", (4, 4), 20, (2, 100)),
    "tinyzero": Level("answer", "all", (3, 4), 99, (1, 100)),
    "show": Level("answer", "any", (6, 6), 0, (101, 999)),
    "show-steps": Level("steps", "any", (6, 6), 0, (101, 999)),
}


def generate(level: str, split: str, index: int) -> Puzzle:
    """Puzzle number `index` of a split; always the same one.

    Raises:
        UnknownNameError: no such level or split.
    """
    if level not in LEVELS:
        raise UnknownNameError("level of countdown", level, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of countdown", split, SPLITS)
    return _generate(level, split, index)


@lru_cache(4096)
def _generate(level: str, split: str, index: int) -> Puzzle:
    rng, wanted = random.Random(f"countdown/{level}/{split}/{index}"), LEVELS[level]
    for _ in count():
        numbers = _draw(rng, wanted)
        target = _combined(rng, numbers, wanted)
        puzzle = Puzzle(numbers, target, wanted.use)
        if wanted.target[0] <= target <= wanted.target[1] and target not in numbers and split_of(name(puzzle)) == split:
            return puzzle
    raise AssertionError("unreachable: count() does not end")


def name(puzzle: Puzzle) -> str:
    """The same for puzzles with the same numbers, in whatever order, and the same target."""
    return " ".join(map(str, [*sorted(puzzle.numbers), puzzle.target]))


def _draw(rng: random.Random, level: Level) -> Numbers:
    if not level.largest:
        numbers = rng.sample(LARGE, 2) + rng.sample([*range(1, 11)] * 2, 4)
    else:
        numbers = [rng.randint(1, level.largest) for _ in range(rng.randint(*level.count))]
    rng.shuffle(numbers)
    return tuple(numbers)


def _combined(rng: random.Random, numbers: Numbers, level: Level) -> int:
    """What random operations make of all the numbers, or of three of them or more where some may be left over."""
    if level.use == "any":
        numbers = tuple(rng.sample(numbers, rng.randint(3, len(numbers))))
    while len(numbers) > 1:
        numbers = apply(numbers, rng.choice(operations(numbers))) or numbers
    return numbers[0]
