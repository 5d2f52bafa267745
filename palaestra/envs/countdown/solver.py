"""Solutions, by search through everything that operations lead to."""

from __future__ import annotations

from functools import lru_cache

from palaestra.envs.countdown.puzzle import Numbers, Operation, Puzzle, apply, done, operations

MOST = 20_000
"""Sets of numbers that are looked into."""


@lru_cache(1024)
def solution(puzzle: Puzzle) -> tuple[Operation, ...] | None:
    """Operations that make the target; `None` where there are none, or none was found among `MOST` sets of numbers.

    Results stay whole and not negative, so a puzzle whose every solution needs fractions counts as having none.
    """
    seen: set[Numbers] = set()
    path: list[Operation] = []

    def search(numbers: Numbers) -> bool:
        if done(puzzle, numbers):
            return True
        if numbers in seen or len(numbers) == 1 or len(seen) >= MOST:
            return False
        seen.add(numbers)
        for operation in operations(numbers):
            after = apply(numbers, operation)
            if after is not None:
                path.append(operation)
                if search(tuple(sorted(after))):
                    return True
                path.pop()
        return False

    return tuple(path) if search(tuple(sorted(puzzle.numbers))) else None


def expression(puzzle: Puzzle, path: tuple[Operation, ...]) -> str:
    """The operations as one expression, brackets around each but the last."""
    parts = [(number, str(number)) for number in puzzle.numbers]
    for operation in path:
        texts = []
        for wanted in (operation.left, operation.right):
            part = next(part for part in parts if part[0] == wanted)
            parts.remove(part)
            texts.append(part[1])
        assert operation.result is not None
        parts.append((operation.result, f"({texts[0]} {operation.sign} {texts[1]})"))
    text = next(text for number, text in parts[::-1] if number == puzzle.target)
    return text.removeprefix("(").removesuffix(")") if path else text
