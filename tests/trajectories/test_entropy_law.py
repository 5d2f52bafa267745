"""The entropy-reward law: what it recovers, and that it says so where nothing can be fitted."""

import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.trajectories.entropy_law import fit_entropy_law
from palaestra.trajectories.report import write_report
from palaestra.trajectories.report.law import ENOUGH_EVALUATIONS, law_chart, law_facts, law_of
from palaestra.trajectories.report.run import Run

write_run: Callable[..., Path] = runpy.run_path(str(Path(__file__).with_name("synthetic_run.py")))["write_run"]


@given(a=st.floats(-3, 3), b=st.floats(-3, 3), seed=st.integers(0, 99))
def test_it_recovers_the_law_that_made_the_pairs(a: float, b: float, seed: int) -> None:
    entropies = np.random.default_rng(seed).uniform(0.05, 2, 12).tolist()
    law = fit_entropy_law(entropies, [b - a * math.exp(h) for h in entropies])
    assert law.a == pytest.approx(a, abs=1e-8)
    assert law.b == pytest.approx(b, abs=1e-8)
    assert law.ceiling == pytest.approx(b - a, abs=1e-8)
    assert law.reward(0.0) == pytest.approx(law.ceiling)


def test_a_fit_by_hand() -> None:
    """exp(H) = 1, 2, 3 and R = 1, 0.6, 0.5: slope -0.25, mean (2, 0.7), so b = 1.2; residuals .05, -.1, .05."""
    law = fit_entropy_law([0.0, math.log(2), math.log(3)], [1.0, 0.6, 0.5])
    assert law.a == pytest.approx(0.25)
    assert law.b == pytest.approx(1.2)
    assert law.ceiling == pytest.approx(0.95)
    assert law.r2 == pytest.approx(1 - 0.015 / 0.14)
    assert law.pairs == 3


def test_with_a_positive_the_curve_falls() -> None:
    law = fit_entropy_law([0.1, 0.2, 0.3], [0.9, 0.7, 0.6])
    assert law.a is not None
    assert law.a > 0
    assert law.reward(0.1) > law.reward(0.2) > law.reward(0.9)


def test_the_order_of_the_pairs_does_not_matter() -> None:
    forth = fit_entropy_law([0.1, 0.2, 0.3, 0.7], [0.9, 0.7, 0.6, 0.1])
    back = fit_entropy_law([0.7, 0.3, 0.2, 0.1], [0.1, 0.6, 0.7, 0.9])
    assert forth.ceiling == pytest.approx(back.ceiling)


@pytest.mark.parametrize(
    ("entropies", "rewards", "reason"),
    [
        ([], [], "0 different entropies"),
        ([0.3], [0.5], "1 different"),
        ([0.3, 0.4, 0.3, 0.4], [0.5, 0.6, 0.5, 0.6], "2 different"),
        ([0.3, 0.3, 0.3, 0.3], [0.5, 0.6, 0.7, 0.8], "never changed"),
        ([0.3, math.nan, None, 0.4], [0.5, 0.6, 0.7, 0.8], "2 different"),
        ([0.3, 0.4, 0.5], [math.nan, None, math.inf], "0 different"),
        ([1e5, 2e5, 3e5], [0.1, 0.2, 0.3], "0 different"),
    ],
)
def test_where_nothing_can_be_fitted_it_says_why(
    entropies: list[float | None], rewards: list[float | None], reason: str
) -> None:
    law = fit_entropy_law(entropies, rewards)
    assert reason in law.reason
    assert law.a is law.b is law.ceiling is law.r2 is None
    with pytest.raises(ValueError, match="no law was fitted"):
        law.reward(0.1)


def test_pairs_that_are_not_finite_are_left_out() -> None:
    law = fit_entropy_law([0.1, 0.2, math.nan, 0.3, 0.4], [0.9, 0.8, 0.1, None, 0.6])
    assert law.pairs == 3
    assert law.ceiling == fit_entropy_law([0.1, 0.2, 0.4], [0.9, 0.8, 0.6]).ceiling


def test_a_reward_that_never_changes_is_its_own_ceiling() -> None:
    law = fit_entropy_law([0.1, 0.2, 0.4], [0.7, 0.7, 0.7])
    assert law.ceiling == pytest.approx(0.7)
    assert law.r2 is None


def metrics(folder: Path, evaluations: int) -> Run:
    """A run that follows R = 1.5 - 0.5 exp(H) on validation, and R = 1.2 - 0.4 exp(H) in training."""
    entropies = [0.6 - 0.04 * k for k in range(12)]
    rows = [
        {"kind": "train", "iteration": k, "entropy": h, "success": 1.2 - 0.4 * math.exp(h)}
        for k, h in enumerate(entropies)
    ]
    rows += [
        {"kind": "eval", "iteration": k, "success": {"value": 1.5 - 0.5 * math.exp(entropies[k])}}
        for k in range(evaluations)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Run.read(folder)


def test_many_evaluations_are_preferred_to_training(tmp_path: Path) -> None:
    validation, training = law_of(metrics(tmp_path, ENOUGH_EVALUATIONS)), law_of(metrics(tmp_path, 3))
    assert validation.source == "validation success"
    assert validation.ceiling == pytest.approx(1.0)
    assert training.source == "training success"
    assert training.ceiling == pytest.approx(0.8)


def test_an_evaluation_after_the_last_iteration_has_no_entropy_beside_it(tmp_path: Path) -> None:
    run = metrics(tmp_path, ENOUGH_EVALUATIONS)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "eval", "iteration": 12, "success": {"value": 0.9}}) + "\n")
    assert law_of(Run.read(tmp_path)) == law_of(run)


def test_the_report_shows_the_fit_and_its_picture(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", iterations=24)
    page = write_report(run).read_text("utf-8")
    assert "predicted ceiling b − a" in page
    chart = law_chart(Run.read(run))
    assert chart is not None
    assert chart.count("dot law-pair") == 24


def test_the_report_says_why_there_is_no_fit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", iterations=2)
    assert law_chart(Run.read(run)) is None
    assert "No fit: 2 different entropies" in write_report(run).read_text("utf-8")


def test_a_ceiling_that_means_nothing_is_told() -> None:
    rising = fit_entropy_law([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert "says nothing" in law_facts(rising)
    beyond = fit_entropy_law([0.5, 0.6, 0.7], [0.9, 0.7, 0.5])
    assert "entropy is not what limits" in law_facts(beyond)
