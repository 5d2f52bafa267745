"""Expressions are read exactly, and hostile ones cost nothing."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.countdown.expression import DEEPEST, LONGEST, evaluate

LEAVES = st.integers(0, 99).map(str)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda text: f"-{text}")
    ),
    max_leaves=12,
)


@given(TREES)
def test_values_are_pythons(text: str) -> None:
    found = evaluate(text)
    assert found is not None
    exact = "".join(f"Fraction({part})" if part.isdigit() else part for part in _parts(text))
    try:
        expected = eval(exact, {"Fraction": Fraction})
    except ZeroDivisionError:
        expected = None
    assert found.value == expected
    assert list(found.numbers) == [int(part) for part in _parts(text) if part.isdigit()]


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for character in text:
        if parts and parts[-1].isdigit() and character.isdigit():
            parts[-1] += character
        else:
            parts.append(character)
    return parts


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 + 2 * 3", 7), ("8 / 4 / 2", 1), ("10 - 4 - 3", 3), ("8/(3-8/3)", 24), ("(5)", 5), (" - 3\n+ 5 ", 2)],
)
def test_operators_bind_as_usual(text: str, value: int) -> None:
    assert evaluate(text) is not None
    assert evaluate(text).value == value  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "()", "(", ")", "1 +", "+ 1", "1 2", "(3)(4)", "3(4)", "1 + )", "(1", "1.5", "1e5", "05", "1_000",
        "9**9**9", "9^9^9", "7//2", "7%2", "2 = 2", "٣ + ١", "１+２", "²", "1 − 2", "2×3", "a", "1\x00", "1 + 1j",
        "__import__('os').system('true')", "().__class__", "lambda: 0", "[1]", "1234567", "(" * 300,
        "(" * 200 + "1" + ")" * 199,
        "-" * 300 + "1", "1" * 10**6, "1+" * 10**6 + "1", "\u200b1",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_none_at_once(text: str) -> None:
    start = time.perf_counter()
    assert evaluate(text) is None
    assert time.perf_counter() - start < 1


def test_depth_and_length_are_bounded() -> None:
    assert evaluate("(" * DEEPEST + "1" + ")" * DEEPEST) is not None
    assert evaluate("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1)) is None
    assert evaluate("1" + "+1" * ((LONGEST - 1) // 2)) is not None
    assert evaluate("1" + "+1" * LONGEST) is None
    assert evaluate("*".join(["999999"] * 50)) is not None


@given(st.text(max_size=200) | st.text("0123456789+-*/(). ", max_size=60))
def test_any_text_is_a_value_or_none(text: str) -> None:
    evaluate(text)
