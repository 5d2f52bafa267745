"""Rollouts by worth: the allocation is the best one."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.training.knapsack import allocate, gain, mixed, value

RATES = st.sampled_from([0.0, 1.0, 0.5, 0.125, 1 / 3]) | st.floats(0.0, 1.0)


@st.composite
def problems(draw: st.DrawFn, tasks: int = 12, most: int = 40) -> tuple[list[float], int, int, int]:
    rates = draw(st.lists(RATES, min_size=1, max_size=tasks))
    low = draw(st.integers(1, 4))
    high = draw(st.integers(low, low + most))
    budget = draw(st.integers(low * len(rates), high * len(rates)))
    return rates, budget, low, high


def total(rollouts: tuple[int, ...] | list[int], rates: list[float]) -> float:
    return math.fsum(value(count, rate) for count, rate in zip(rollouts, rates, strict=True))


def best_by_tables(rates: list[float], budget: int, low: int, high: int) -> float:
    """The dynamic programme over tasks and budgets."""
    best = {0: 0.0}
    for rate in rates:
        found: dict[int, float] = {}
        for spent, worth in best.items():
            for count in range(low, high + 1):
                if spent + count <= budget:
                    found[spent + count] = max(found.get(spent + count, -1.0), worth + value(count, rate))
        best = found
    return best[budget]


def test_the_value_is_the_formula() -> None:
    assert value(4, 0.25) == pytest.approx((1 - 0.25**4 - 0.75**4) * 0.25 * 0.75**2)
    for rate in (0.0, 0.2, 0.5, 1.0):
        assert value(1, rate) == pytest.approx(0, abs=1e-16)
    for count in (1, 2, 7, 128):
        assert value(count, 0.0) == value(count, 1.0) == 0
    assert mixed(2, 0.5) == 0.5


@given(st.floats(0.0, 1.0), st.integers(1, 127))
def test_the_gain_is_a_difference_and_falls(rate: float, count: int) -> None:
    assert gain(count, rate) == pytest.approx(value(count + 1, rate) - value(count, rate), abs=1e-15)
    assert gain(count + 1, rate) <= gain(count, rate)


@given(problems())
def test_allocations_sum_to_the_budget_within_the_bounds(problem: tuple[list[float], int, int, int]) -> None:
    rates, budget, low, high = problem
    found = allocate(rates, budget, low, high)
    assert sum(found) == budget
    assert all(low <= count <= high for count in found)


@settings(max_examples=60)
@given(problems(tasks=4, most=4))
def test_no_allocation_is_better(problem: tuple[list[float], int, int, int]) -> None:
    rates, budget, low, high = problem
    every = itertools.product(range(low, high + 1), repeat=len(rates))
    best = max(total(each, rates) for each in every if sum(each) == budget)
    assert total(allocate(rates, budget, low, high), rates) == pytest.approx(best, abs=1e-12)
    assert best_by_tables(rates, budget, low, high) == pytest.approx(best, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(problems(tasks=8, most=20))
def test_it_is_the_dynamic_programme_s(problem: tuple[list[float], int, int, int]) -> None:
    rates, budget, low, high = problem
    best = best_by_tables(rates, budget, low, high)
    assert total(allocate(rates, budget, low, high), rates) == pytest.approx(best, abs=1e-12)


@given(RATES, st.integers(1, 10), st.integers(0, 200))
def test_equal_rates_get_equal_shares_up_to_one(rate: float, tasks: int, more: int) -> None:
    found = allocate([rate] * tasks, 2 * tasks + min(more, 126 * tasks), 2, 128)
    assert max(found) - min(found) <= 1


@given(problems())
def test_the_order_of_tasks_hardly_matters(problem: tuple[list[float], int, int, int]) -> None:
    """Only among equals does the place decide."""
    rates, budget, low, high = problem
    there, back = allocate(rates, budget, low, high), allocate(rates[::-1], budget, low, high)[::-1]
    assert total(there, rates) == pytest.approx(total(back, rates), abs=1e-12)


def test_the_spare_budget_goes_to_tasks_never_solved() -> None:
    assert allocate([0.0, 0.5, 1.0], 18, 2, 8) == [8, 8, 2]
    assert allocate([0.0, 0.5, 1.0], 20, 2, 8) == [8, 8, 4]
    assert allocate([0.0, 0.0, 0.5], 24, 2, 12) == [6, 6, 12]
    assert allocate([0.0, 0.5, 1.0], 24, 2, 128) == [2, 20, 2]
    assert allocate([0.0, 0.5, 1.0], 24, 2, 128, least_gain=1e-3) == [15, 7, 2]
    assert gain(7, 0.5) <= 1e-3 < gain(6, 0.5)


def test_hard_tasks_get_more_than_easy_ones() -> None:
    easy, hard = allocate([0.9, 0.1], 16, 2, 14)
    assert hard > easy


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tasks cannot have 3 rollouts of 2 to 4 each"):
        allocate([0.5, 0.5], 3, 2, 4)
    with pytest.raises(ValueError, match="cannot have 9"):
        allocate([0.5, 0.5], 9, 2, 4)
    assert allocate([], 0, 2, 4) == []
