"""Arithmetic problems, made from a seed: short ones, which even a tiny model can learn."""

from __future__ import annotations

from random import Random

from palaestra.envs.math.problem import Problem
from palaestra.envs.math.splits import split_of
from palaestra.errors import ConfigError, DataError
from palaestra.seeds import derive_seed

SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}
"""Split -> number of its problems."""
DIFFICULTY = 2
HARDEST = 8
MOST_CHOICES = 100


def whole(name: str, number: object, least: int, most: int) -> int:
    """`number`, if it is a whole one and in range.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise ConfigError(f"{name} is a whole number from {least} to {most}, not {number!r}")
    return number


def checked(difficulty: object) -> int:
    """`difficulty`, if there is such a one.

    Raises:
        ConfigError: it is not a whole number from 1 to 8.
    """
    return whole("difficulty", difficulty, 1, HARDEST)


def problem(split: str, index: int, difficulty: int = DIFFICULTY, choices: int = 0) -> Problem:
    """Problem `index` of a split, such as `12 + 7 * 3 = ?`.

    Args:
        split: the problem's own text decides which it is in, so that none is in two.
        index: of the problem, below `SIZES[split]`. Two problems of a split may be the same where there are few.
        difficulty: 1 adds or subtracts two numbers below 10; above it numbers are larger and terms more, and some are
            products.
        choices: answers to choose from, 0 for none.

    Raises:
        DataError: the split has no such problem.
    """
    if not 0 <= index < SIZES[split]:
        raise DataError(f"math/arithmetic:{split} has problems 0 to {SIZES[split] - 1}, not {index}")
    generator = Random(derive_seed(index, f"math/arithmetic/{difficulty}/{split}"))
    while True:
        text, value = _expression(generator, difficulty)
        if split_of(text) == split:
            break
    return Problem(
        problem=f"{text} = ?",
        answer=str(value),
        kind="arithmetic",
        judge="exact",
        bare=True,
        choices=_around(generator, value, choices),
    )


def _around(generator: Random, value: int, count: int) -> tuple[str, ...]:
    """`count` whole numbers in a row, one of which is `value`."""
    first = value - generator.randrange(count) if count else 0
    return tuple(str(first + i) for i in range(count))


def _expression(generator: Random, difficulty: int) -> tuple[str, int]:
    text, value = _term(generator, difficulty)
    for _ in range((difficulty + 1) // 2):
        term, amount = _term(generator, difficulty)
        adds = generator.random() < 0.5
        text, value = f"{text} {'+' if adds else '-'} {term}", value + (amount if adds else -amount)
    return text, value


def _term(generator: Random, difficulty: int) -> tuple[str, int]:
    number = generator.randrange(1, 10 * difficulty)
    if difficulty == 1 or generator.random() < 0.6:
        return str(number), number
    factor = generator.randrange(2, 10)
    number = generator.randrange(2, 5 * difficulty)
    return f"{number} * {factor}", number * factor
