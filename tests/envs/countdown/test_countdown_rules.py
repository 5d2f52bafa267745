"""Operations, grades, solutions, and puzzles by split."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.countdown.generate import LEVELS, generate, name
from palaestra.envs.countdown.puzzle import (
    Operation,
    Puzzle,
    apply,
    done,
    grade,
    operations,
    read_operation,
)
from palaestra.envs.countdown.solver import expression, solution
from palaestra.envs.tasks import SPLITS

PUZZLE = Puzzle((3, 5, 8), 64, "all")
SOME = Puzzle((3, 5, 8), 40, "any")


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("<answer>(3 + 5) * 8</answer>", 1.0),
        ("I think <answer>3*5</answer>, no: <answer>8*(5+3)</answer>", 1.0),
        ("so it is \\boxed{(3+5)*8}.", 1.0),
        ("(3 + 5) * 8", 1.0),
        ("<answer>3 + 5 + 8</answer>", 0.1),
        ("<answer>8 * 8</answer>", 0.1),
        ("<answer>64</answer>", 0.1),
        ("<answer>(3+5)*8*1</answer>", 0.1),
        ("<answer>(3+5)*8 = 64</answer>", 0.1),
        ("<answer>8/(5-5)+3</answer>", 0.1),
        ("<answer>8**(5-3)</answer>", 0.1),
        ("<answer>hello</answer>", 0.1),
        ("<answer></answer>", 0.1),
        ("3 + 5", 0.1),
        ("", 0.0),
        ("hello", 0.0),
        ("the answer is (3 + 5) * 8", 0.0),
        ("<answer>(3 + 5) * 8", 0.0),
        ("</answer>(3 + 5) * 8<answer>", 0.0),
        ("<answer>" * 10**5, 0.0),
        ("9**9**9", 0.0),
    ],
)
def test_answers_are_worth_what_tinyzero_says(answer: str, reward: float) -> None:
    assert grade(PUZZLE, answer).reward == reward


def tinyzero(puzzle: Puzzle, answer: str) -> float:
    """The check as TinyZero describes it: the last tag, the same numbers, the value."""
    found = re.findall(r"<answer>(.*?)</answer>", answer)
    if not found:
        return 0.0
    text = found[-1].strip()
    if sorted(map(int, re.findall(r"\d+", text))) != sorted(puzzle.numbers) or not re.fullmatch(
        r"[\d+\-*/().\s]+", text
    ):
        return 0.1
    try:
        return 1.0 if abs(eval(text, {"__builtins__": {}}) - puzzle.target) < 1e-5 else 0.1
    except (SyntaxError, ZeroDivisionError, TypeError):
        return 0.1


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["3", "5", "8", "+", "-", "*", "/", "(", ")", " "]), max_size=12))
def test_grades_are_those_of_a_plain_check(parts: list[str]) -> None:
    text = f"<answer>{''.join(parts)}</answer>"
    if any(sign in text for sign in ("**", "//", "+ +", "++", "(+", "*+", "-+", "/+")) or re.search(
        r"[-+*/(]\s*\+|>\s*\+", text
    ):
        return  # powers, whole division and signs of plus are no part of our language
    assert grade(PUZZLE, text).reward == tinyzero(PUZZLE, text)


def test_where_some_may_be_left_over_none_may_be_used_twice() -> None:
    assert grade(SOME, "<answer>8 * 5</answer>").reward == 1.0
    assert grade(SOME, "<answer>8 * 8 - 8 * 3</answer>").reward == 0.1
    assert grade(Puzzle((5, 5, 8), 18, "any"), "<answer>5 + 5 + 8</answer>").reward == 1.0


def test_decimals_made_of_two_numbers_are_not_paid_for() -> None:
    assert tinyzero(Puzzle((2, 5, 4), 10, "all"), "<answer>2.5*4</answer>") == 1.0
    assert grade(Puzzle((2, 5, 4), 10, "all"), "<answer>2.5*4</answer>").reward == 0.1


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("3 + 5", "3 + 5"),
        ("8/4", "8 / 4"),
        (" 8 - 5 = 3 ", "8 - 5"),
        ("I see. <action>8 * 5</action>", "8 * 5"),
        ("8 - 5 = 4", None),
        ("3 ** 5", None),
        ("3 + 5 + 8", None),
        ("٣ + ١", None),
        ("3 +", None),
        ("-3 + 5", None),
        ("1" * 10**6 + " + 1", None),
        ("99999999999999 + 1", None),
        (None, None),
        (7, None),
    ],
)
def test_operations_are_read(said: object, meant: str | None) -> None:
    found = read_operation(said)
    assert (None if found is None else str(found)) == meant


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6).map(tuple))
def test_everything_that_can_be_done_is_listed(numbers: tuple[int, ...]) -> None:
    listed = operations(numbers)
    assert len(set(listed)) == len(listed)
    reached = {tuple(sorted(apply(numbers, operation) or ())) for operation in listed}
    assert () not in reached
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            for sign in "+-*/" if i != j else "":
                after = apply(numbers, Operation(a, sign, b))
                assert after is None or tuple(sorted(after)) in reached
    assert apply(numbers, Operation(31, "+", numbers[0])) is None


def test_one_number_is_not_taken_twice() -> None:
    assert apply((3, 5), Operation(3, "+", 3)) is None
    assert apply((3, 3), Operation(3, "+", 3)) == (6,)


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_every_puzzle_has_a_solution_and_its_expression_is_right(level: str) -> None:
    for index in range(25):
        puzzle = generate(level, "test", index)
        path = solution(puzzle)
        assert path is not None
        assert grade(puzzle, f"<answer>{expression(puzzle, path)}</answer>").reward == 1.0
        numbers = puzzle.numbers
        for operation in path:
            assert not done(puzzle, numbers)
            numbers = apply(numbers, operation) or ()
        assert done(puzzle, numbers)
        low, high = LEVELS[level].target
        assert low <= puzzle.target <= high


def test_what_has_no_solution_is_found_out() -> None:
    assert solution(Puzzle((1, 1), 7, "all")) is None
    assert solution(Puzzle((3, 3, 8, 8), 24, "all")) is None  # only with fractions
    assert grade(Puzzle((3, 3, 8, 8), 24, "all"), "<answer>8 / (3 - 8 / 3)</answer>").reward == 1.0
    assert solution(Puzzle((2, 4, 6, 8, 10, 12, 14, 16), 999_983, "any")) is None


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_splits_share_no_puzzle(level: str) -> None:
    found = {split: Counter(name(generate(level, split, index)) for index in range(200)) for split in SPLITS}
    assert all(len(names) > 100 for names in found.values())
    assert not set(found["train"]) & set(found["test"])
    assert not set(found["train"]) & set(found["validation"])
    assert not set(found["validation"]) & set(found["test"])
