"""Prioritised sampling: what is uncertain comes more often, and everything can come."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.updates import episodes

from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import CheckpointError
from palaestra.training.places import Places
from palaestra.training.prioritised import Prioritised, weight, weighted_order
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.value_tracker import ValueTracker

SUITE = TaskSuite("a", "train", 6, lambda i: Task(env="a/A-v0", name=str(i)))


@given(st.floats(0, 1))
def test_the_weight_is_highest_at_one_half_and_never_below_the_floor(value: float) -> None:
    assert 0.05 <= weight(value) <= weight(0.5) == 0.55
    assert weight(value) == pytest.approx(weight(1 - value))


def test_draws_are_in_proportion_and_without_replacement() -> None:
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    orders = np.stack([weighted_order(weights, seed, "x") for seed in range(4000)])
    assert (np.sort(orders, 1) == np.arange(4)).all()
    first = np.bincount(orders[:, 0], minlength=4) / 4000
    np.testing.assert_allclose(first, weights / 10, atol=0.03)
    after_last = orders[orders[:, 0] == 3, 1]
    np.testing.assert_allclose(np.bincount(after_last, minlength=3) / len(after_last), weights[:3] / 6, atol=0.04)
    assert (weighted_order(weights, 5, "x") == weighted_order(weights, 5, "x")).all()


def test_solved_tasks_are_rare_but_reachable() -> None:
    values, places = ValueTracker("v"), Places()
    chooser = Prioritised(values, places)
    batch = build_rows(episodes()).batch  # tasks 0 to 2
    places.choose(SUITE, [0, 1, 2])
    places.observe(batch, Moment(0, 1))
    values.counts.update({"0 0": (2.0, 2.0), "0 1": (3.0, 3.0), "0 2": (1e9, 1.0)})
    assert len(places) == 3
    drawn = [chooser(SUITE, 2, Moment(iteration, 900)) for iteration in range(900)]
    counts = np.bincount([place for choice in drawn for place in choice.places], minlength=6)
    assert 0 < counts[2] < min(counts[[0, 1, 3, 4, 5]]) / 4
    assert all(len(set(choice.places)) == 2 for choice in drawn)
    assert drawn[0].log["tasks_known"] == 3
    weights = np.array([0.55, 0.55, weight(1e9 / (1e9 + 1)), 0.55, 0.55, 0.55])
    assert drawn[0].log["tasks_effective"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_a_choice_depends_on_what_was_played_and_changes_nothing() -> None:
    values, places = ValueTracker("v"), Places()
    chooser = Prioritised(values, places)
    moment, batch = Moment(3, 9, seed=1), build_rows(episodes()).batch
    before = json.dumps(places.state_dict())
    first = chooser(SUITE, 4, moment).places
    assert chooser(SUITE, 4, moment).places == first
    assert chooser(SUITE, 4, Moment(3, 9, seed=2)).places != first
    assert json.dumps(places.state_dict()) == before
    places.observe(batch, moment)
    assert {key for _, key in places.items()} == {"0 0", "0 1", "0 2"} & {f"0 {place}" for place in first}
    chooser(SUITE, 6, moment)
    places.observe(build_rows(episodes()[:4]).batch, moment)
    assert "0 0" in {key for _, key in places.items()}
    again = Places()
    again.load_state_dict(json.loads(json.dumps(places.state_dict())))
    assert dict(again.items()) == dict(places.items())
    with pytest.raises(CheckpointError, match="not saved places"):
        again.load_state_dict({"places": {"a": "b"}})


def test_a_small_suite_is_played_again() -> None:
    chooser = Prioritised(ValueTracker("v"), Places())
    found = chooser(SUITE[:2], 5, Moment(0, 1)).places
    assert sorted(found[:2]) == sorted(found[2:4]) == [0, 1]
    assert found[4] in (0, 1)
    assert set(chooser(SUITE, 3, Moment(0, 1), taken=[0, 1, 2]).places) == {3, 4, 5}


def test_a_large_suite_is_not_built() -> None:
    built: list[int] = []

    def build(index: int) -> Task:
        built.append(index)
        return Task(env="a/A-v0", name=str(index))

    chooser = Prioritised(ValueTracker("v"), Places())
    found = chooser(TaskSuite("a", "train", 100_000, build), 8, Moment(0, 1)).places
    assert sorted(built) == sorted(found)
