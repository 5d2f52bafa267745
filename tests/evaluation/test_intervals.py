from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.evaluation.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # R's prop.test(x, n, correct=FALSE), and Newcombe (1998), table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson_published_values(successes: int, n: int, low: float, high: float) -> None:
    rate = wilson(successes, n)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-5)


counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_holds_the_share_within_zero_and_one(case: tuple[int, int]) -> None:
    rate = wilson(*case)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.low < rate.high


@given(counts)
def test_wilson_mirrors(case: tuple[int, int]) -> None:
    successes, n = case
    rate, mirror = wilson(successes, n), wilson(n - successes, n)
    assert (rate.low, rate.high) == pytest.approx((1 - mirror.high, 1 - mirror.low), abs=1e-12)


@given(counts, st.integers(2, 50))
def test_wilson_narrows_with_more_of_the_same(case: tuple[int, int], k: int) -> None:
    few, many = wilson(*case), wilson(case[0] * k, case[1] * k)
    assert many.high - many.low < few.high - few.low


@given(counts)
def test_wilson_ends_solve_its_equation(case: tuple[int, int]) -> None:
    """An end p of the interval is where the observed share is z standard errors *of p* away."""
    successes, n = case
    rate, z = wilson(successes, n), 1.959963984540054
    for p in {rate.low, rate.high} - {0.0, 1.0}:
        assert (rate.value - p) ** 2 == pytest.approx(z * z * p * (1 - p) / n, rel=1e-6)


def test_wilson_of_nothing_knows_nothing() -> None:
    rate = wilson(0, 0)
    assert (rate.value, rate.n, rate.low, rate.high) == (0.0, 0, 0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        wilson(successes, n)


def test_a_rate_reads_well() -> None:
    assert str(wilson(81, 263)) == "30.8 % [25.5, 36.6], n=263"
