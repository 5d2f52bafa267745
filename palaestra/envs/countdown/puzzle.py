"""A puzzle, and its rules: what one operation does to the numbers, and what an answer is worth."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal, NamedTuple

from palaestra.envs.countdown.expression import evaluate
from palaestra.envs.spoken import spoken

Use = Literal["all", "any"]
Numbers = tuple[int, ...]

FORMAT = 0.1
"""Worth of an answer in the form that was asked for, whatever it comes to."""
LARGEST = 10**12
"""Results beyond it are not allowed."""
_OPERATION = re.compile(r"([0-9]{1,13})\s*([-+*/])\s*([0-9]{1,13})(?:\s*=\s*([0-9]{1,13}))?", re.ASCII)


class Puzzle(NamedTuple):
    """Numbers, and what to make of them."""

    numbers: Numbers
    target: int
    use: Use
    """Whether every number has to be used, or some may be left over; none may be used twice."""


class Operation(NamedTuple):
    """One operation on two of the numbers."""

    left: int
    sign: str
    right: int

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"

    @property
    def result(self) -> int | None:
        """`None` where it is no whole number from 0."""
        left, sign, right = self
        if sign == "/":
            return left // right if right and left % right == 0 else None
        value = left + right if sign == "+" else left - right if sign == "-" else left * right
        return value if 0 <= value <= LARGEST else None


def apply(numbers: Numbers, operation: Operation) -> Numbers | None:
    """The numbers with the result in place of the two; `None` where they are not there, or the result not allowed."""
    left = list(numbers)
    result = operation.result
    for number in (operation.left, operation.right):
        if number not in left:
            return None
        left.remove(number)
    return None if result is None else (*left, result)


def operations(numbers: Numbers) -> list[Operation]:
    """Everything that can be done; a sum or product is there once, its larger number first."""
    pairs = sorted({(max(a, b), min(a, b)) for i, a in enumerate(numbers) for b in numbers[i + 1 :]}, reverse=True)
    found = [Operation(a, sign, b) for a, b in pairs for sign in "+-*/"]
    found += [Operation(0, "/", a) for a, b in pairs if b == 0 < a]  # all others the other way round are not whole
    return [operation for operation in found if operation.result is not None]


def done(puzzle: Puzzle, numbers: Numbers) -> bool:
    """Whether the target is made."""
    return puzzle.target in numbers if puzzle.use == "any" else numbers == (puzzle.target,)


def read_operation(action: object) -> Operation | None:
    """The operation that an action names, `3 + 4` or `3 + 4 = 7`; `None` where it names none, or a wrong result."""
    match = _OPERATION.fullmatch(spoken(action) or "")
    if match is None:
        return None
    operation = Operation(int(match[1]), match[2], int(match[3]))
    return operation if match[4] is None or int(match[4]) == operation.result else None


class Graded(NamedTuple):
    """What an answer is worth."""

    reward: float
    """TinyZero's: 1 for the target, 0.1 for an answer that is anything else, 0 for none."""
    told: str
    """To the agent."""


def grade(puzzle: Puzzle, action: object) -> Graded:
    """Grade an answer: the last one in `<answer>` or `\\boxed{}`, or a text that is nothing but an expression."""
    text = action if isinstance(action, str) else ""
    answer = _last(text, "<answer>", "</answer>")
    answer = _last(text, "\\boxed{", "}") if answer is None else answer
    found = evaluate(text if answer is None else answer)
    if found is None:
        return Graded(0.0, "There is no answer.") if answer is None else Graded(FORMAT, "That is no expression.")
    ours, used = Counter(puzzle.numbers), Counter(found.numbers)
    if used != ours if puzzle.use == "all" else used - ours:
        return Graded(FORMAT, "These are not the numbers, or not each as often as it may be used.")
    if found.value is None:
        return Graded(FORMAT, "That divides by zero.")
    if found.value != puzzle.target:
        return Graded(FORMAT, f"That is {found.value}, not {puzzle.target}.")
    return Graded(1.0, "That is right.")


def _last(text: str, opening: str, closing: str) -> str | None:
    end = text.rfind(closing)
    start = text.rfind(opening, 0, max(end, 0))
    return text[start + len(opening) : end].strip() if start >= 0 else None
