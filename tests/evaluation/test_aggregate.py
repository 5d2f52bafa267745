"""Statistics over runs: against numbers by hand, and what holds for all scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.evaluation.aggregate import (
    difference_of_iqm,
    interquartile_mean,
    mean_score,
    probability_of_improvement,
    stratified_bootstrap,
)

runs = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def arrays(**strata: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(values, dtype=np.float64) for name, values in strata.items()}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.3], 0.3),
        ([0.1, 0.9], 0.5),
        ([0.0, 0.2, 0.4, 1.0], 0.3),  # one cut at each end
        ([0.0, 0.3, 0.4, 0.5, 1.0], 0.4),  # five seeds: the middle three
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0], 3.5),  # 2 of 8 cut at each end
    ],
)
def test_interquartile_mean_by_hand(scores: list[float], expected: float) -> None:
    assert interquartile_mean(arrays(a=scores)) == pytest.approx(expected)


def test_the_strata_are_pooled_before_the_ends_are_cut() -> None:
    assert interquartile_mean(arrays(a=[0.0, 1.0], b=[0.4, 0.6])) == pytest.approx(0.5)
    assert interquartile_mean(arrays(a=[0.0, 0.1, 0.2, 0.3], b=[0.9, 0.8, 0.7, 0.6])) == pytest.approx(0.45)


def test_mean_score_weighs_strata_alike() -> None:
    assert mean_score(arrays(a=[0.0, 0.0, 0.0], b=[1.0])) == pytest.approx(0.5)


@given(st.floats(-5, 5), st.integers(1, 9))
def test_interquartile_mean_of_a_constant(value: float, n: int) -> None:
    assert interquartile_mean(arrays(a=[value] * n)) == pytest.approx(value)


@given(runs, st.randoms())
def test_interquartile_mean_ignores_the_order_and_stays_inside(scores: list[float], rng: object) -> None:
    shuffled = list(scores)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    value = interquartile_mean(arrays(a=scores))
    assert interquartile_mean(arrays(a=shuffled)) == pytest.approx(value)
    assert min(scores) - 1e-12 <= value <= max(scores) + 1e-12


def test_one_wild_run_of_five_changes_nothing() -> None:
    calm = interquartile_mean(arrays(a=[0.4, 0.5, 0.6, 0.5, 0.9]))
    assert interquartile_mean(arrays(a=[0.4, 0.5, 0.6, 0.5, 1e9])) == calm


def test_probability_of_improvement_by_hand() -> None:
    """Of the six pairs (1, 0), (1, 2), (1, 1), (3, 0), (3, 2), (3, 1): four wins, one tie, one loss."""
    assert probability_of_improvement(arrays(a=[1, 3]), arrays(a=[0, 2, 1])) == pytest.approx(4.5 / 6)
    both = probability_of_improvement(arrays(a=[1, 3], b=[0]), arrays(a=[0, 2, 1], b=[1]))
    assert both == pytest.approx(4.5 / 12)


@given(runs, runs)
def test_probability_of_improvement_is_antisymmetric(x: list[float], y: list[float]) -> None:
    forth, back = (
        probability_of_improvement(arrays(a=x), arrays(a=y)),
        probability_of_improvement(arrays(a=y), arrays(a=x)),
    )
    assert forth + back == pytest.approx(1)
    assert 0 <= forth <= 1
    assert probability_of_improvement(arrays(a=x), arrays(a=x)) == pytest.approx(0.5)


def test_other_strata_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"\['a'\] with \['b'\]"):
        probability_of_improvement(arrays(a=[1]), arrays(b=[1]))


@settings(deadline=None, max_examples=30)
@given(runs, runs, st.integers(0, 5))
def test_the_interval_holds_the_value(x: list[float], y: list[float], seed: int) -> None:
    found = stratified_bootstrap(interquartile_mean, {"a": x, "b": y}, resamples=60, seed=seed)
    assert found.low <= found.value <= found.high
    assert found.runs == len(x) + len(y)
    against = stratified_bootstrap(probability_of_improvement, {"a": x}, {"a": y}, resamples=60, seed=seed)
    assert 0 <= against.low <= against.value <= against.high <= 1


def test_without_spread_there_is_no_interval() -> None:
    found = stratified_bootstrap(interquartile_mean, {"a": [0.5] * 5, "b": [0.5] * 5})
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_strata_are_resampled_apart() -> None:
    """Runs never cross over: with no spread inside the strata there is none at all, however far apart they lie."""
    found = stratified_bootstrap(mean_score, {"a": [0.0] * 4, "b": [1.0] * 4})
    assert (found.low, found.high) == (0.5, 0.5)


def test_the_interval_of_a_mean_is_the_normal_one_where_runs_are_many() -> None:
    scores = np.random.default_rng(1).normal(0.5, 0.1, 400)
    found = stratified_bootstrap(mean_score, {"a": scores.tolist()})
    half = 1.96 * scores.std() / math.sqrt(len(scores))
    assert found.low == pytest.approx(scores.mean() - half, abs=0.002)
    assert found.high == pytest.approx(scores.mean() + half, abs=0.002)


def test_the_same_seed_gives_the_same_interval_in_any_chunks() -> None:
    scores = {"a": [0.1, 0.4, 0.3, 0.9, 0.5]}
    first = stratified_bootstrap(interquartile_mean, scores, resamples=700)
    assert first == stratified_bootstrap(interquartile_mean, scores, resamples=700)
    assert first != stratified_bootstrap(interquartile_mean, scores, resamples=700, seed=1)


def test_a_clear_difference_has_an_interval_above_zero() -> None:
    ours, theirs = {"a": [0.8, 0.82, 0.85, 0.79, 0.81]}, {"a": [0.6, 0.62, 0.65, 0.59, 0.61]}
    found = stratified_bootstrap(difference_of_iqm, ours, theirs)
    assert found.value == pytest.approx(0.2)
    assert found.low > 0
    assert stratified_bootstrap(probability_of_improvement, ours, theirs).value == 1.0


@pytest.mark.parametrize("strata", [{}, {"a": []}, {"a": [0.1, math.nan]}])
def test_senseless_scores_are_refused(strata: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one|finite"):
        stratified_bootstrap(interquartile_mean, strata)
