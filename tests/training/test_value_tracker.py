"""SPO's memory: a Beta count per task that forgets as the policy moves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.updates import episodes, learner

from palaestra.errors import CheckpointError
from palaestra.training.batch import Batch
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.value_tracker import PRIOR, ValueTracker

BATCH = build_rows(episodes()).batch
KEYS = ["0 0", "0 1", "0 2"]
"""Tasks 0 to 2, four episodes each: rewards 0101, 1001, 1111."""


def scored(batch: Batch, shift: float = 0.0) -> Batch:
    return batch.with_(old_logprob=batch.rollout_logprob + shift, advantage=torch.zeros(batch.shape))


def single(tracker: ValueTracker, outcome: float, drift: float | None = None) -> None:
    """One visit of one episode; `drift` as measured on the response before."""
    batch = scored(build_rows(episodes((outcome,))).batch)
    moment = Moment(0, 1)
    if drift is not None and (rows := tracker.recall(batch, moment)) is not None:
        batch = batch.with_(recalled={tracker.name: rows.with_(old_logprob=rows.rollout_logprob - drift)})
    tracker.observe(batch, moment)


def test_a_visit_forgets_and_counts() -> None:
    tracker = ValueTracker("v")
    assert tracker.value(KEYS[0]) == 0.5
    tracker.observe(scored(BATCH), Moment(0, 9))
    assert tracker.counts[KEYS[0]] == pytest.approx((0.96 * 0.5 + 2, 0.96 * 0.5 + 2))
    assert tracker.counts[KEYS[2]] == pytest.approx((0.96 * 0.5 + 4, 0.96 * 0.5))
    assert tracker.value("0 other") == 0.5


@pytest.mark.parametrize(
    ("drift", "rho"), [(0.0, 0.96), (0.001, 0.96), (0.006, 2**-0.1), (0.01, 2 ** (-1 / 6)), (0.06, 0.875), (9, 0.875)]
)
def test_what_is_forgotten_follows_the_policy(drift: float, rho: float) -> None:
    tracker = ValueTracker("v")
    single(tracker, 1.0)
    a, b = tracker.counts[KEYS[0]]
    single(tracker, 0.0, drift)
    assert tracker.counts[KEYS[0]] == pytest.approx((rho * a, rho * b + 1), rel=1e-5)


def test_half_of_what_is_known_is_gone_at_d_half() -> None:
    assert ValueTracker("v", rho_min=0.1, rho_max=1.0).rho(0.06) == pytest.approx(0.5)
    assert ValueTracker("v", d_half=math.inf).rho(9.0) == 0.96


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 1), st.floats(0.001, 1))
@settings(deadline=None, max_examples=25)
def test_values_stay_inside_and_memory_is_bounded(outcomes: list[float], one: float, other: float) -> None:
    tracker = ValueTracker("v", rho_min=min(one, other), rho_max=max(one, other))
    for outcome in outcomes:
        single(tracker, outcome)
        assert 0 < tracker.value(KEYS[0]) < 1
    if tracker.rho_max < 1:
        assert sum(tracker.counts.get(KEYS[0], PRIOR)) <= 1 / (1 - tracker.rho_max) + 1e-9


def test_thousands_of_failures_do_not_make_a_value_of_nothing() -> None:
    tracker = ValueTracker("v", d_half=math.inf, rho_min=0.1, rho_max=0.1)
    for _ in range(400):
        single(tracker, 0.0)
    assert 0 < tracker.value(KEYS[0]) < 1e-6


@given(st.lists(st.sampled_from([0.0, 1.0]), max_size=12))
@settings(deadline=None, max_examples=20)
def test_without_forgetting_it_is_a_plain_count(outcomes: list[float]) -> None:
    tracker = ValueTracker("v", rho_min=1.0, rho_max=1.0)
    for outcome in outcomes:
        single(tracker, outcome, 5.0)
    won = sum(outcomes)
    assert tracker.counts.get(KEYS[0], PRIOR) == (0.5 + won, 0.5 + len(outcomes) - won)
    assert not tracker.responses


def test_rewards_of_another_scale_are_mapped() -> None:
    tracker = ValueTracker("v", low=-1.0, high=9.0)
    batch = scored(BATCH.with_(reward=10 * BATCH.reward - 1))
    torch.testing.assert_close(tracker.outcomes(batch), BATCH.reward[: len(tracker.outcomes(batch))])
    tracker.observe(batch, Moment(0, 9))
    plain = ValueTracker("v")
    plain.observe(scored(BATCH), Moment(0, 9))
    assert tracker.counts == plain.counts
    outside = ValueTracker("v")
    outside.observe(scored(BATCH.with_(reward=10 * BATCH.reward - 5)), Moment(0, 9))
    assert outside.counts == plain.counts


def test_the_drift_is_the_mean_change_over_a_response_s_tokens() -> None:
    tracker = ValueTracker("v")
    tracker.observe(scored(BATCH), Moment(0, 9))
    rows = tracker.recall(BATCH, Moment(1, 9))
    assert rows is not None
    assert len(rows.ids) == 3
    first = [min(range(4 * task, 4 * task + 4), key=str) for task in range(3)]
    for row, trajectory in enumerate(first):
        assert torch.equal(rows.ids[row][rows.mask[row]], BATCH.ids[trajectory][BATCH.mask[trajectory]])
    change = torch.where(rows.mask, torch.arange(rows.shape[1]) / 100 * (-1.0) ** torch.arange(rows.shape[1]), 0.0)
    now = BATCH.with_(recalled={"v": rows.with_(old_logprob=rows.rollout_logprob + change)})
    expected = [float(change[row][rows.mask[row]].abs().mean()) for row in range(3)]
    assert tracker.drift(now) == pytest.approx(dict(zip(KEYS, expected, strict=True)), abs=1e-6)
    assert tracker.drift(BATCH) == {}


def test_the_learner_scores_the_last_responses_under_the_policy_that_plays() -> None:
    """No drift while the weights stand still; some after they have moved."""
    subject = learner("algorithm.name=spo", "optimiser.lr=0.01")
    tracker = subject.algorithm.parts.trackers["spo_values"]
    assert isinstance(tracker, ValueTracker)
    first = subject.update(BATCH, Moment(0, 9))
    assert first.batch.recalled == {}
    assert first.metrics["spo_drift"] is None
    assert first.metrics["spo_known"] == 0
    second = subject.update(BATCH, Moment(1, 9))
    rows = second.batch.recalled["spo_values"]
    drift = second.metrics["spo_drift"]
    assert drift is not None
    assert drift > 1e-4
    torch.testing.assert_close(tracker.responses[KEYS[0]].logprob, second.batch.old_logprob[0][BATCH.mask[0]])  # type: ignore[index]
    still = learner("algorithm.name=spo", "optimiser.lr=1e-12")
    for iteration in range(2):
        again = still.update(BATCH, Moment(iteration, 9))
    assert again.metrics["spo_drift"] == pytest.approx(0, abs=1e-6)
    assert rows.traj.tolist() == [0, 1, 2]


def test_what_filters_leave_out_is_known_all_the_same() -> None:
    tracker = ValueTracker("v")
    tracker.observe(scored(BATCH.keeping(BATCH.traj < 4)), Moment(0, 9))
    assert set(tracker.counts) == set(tracker.responses) == set(KEYS)


def test_an_episode_without_tokens_leaves_no_response() -> None:
    tracker = ValueTracker("v")
    mask = BATCH.mask & (BATCH.traj >= 4)[:, None]
    tracker.observe(scored(BATCH.with_(mask=mask)), Moment(0, 9))
    assert set(tracker.counts) == set(KEYS)
    assert set(tracker.responses) == set(KEYS[1:])


def test_state_comes_back_through_json() -> None:
    tracker, again = ValueTracker("v"), ValueTracker("v")
    for iteration in range(2):
        tracker.observe(scored(BATCH, 0.1 * iteration), Moment(iteration, 9))
    again.observe(scored(build_rows([replaced(e) for e in episodes()]).batch), Moment(0, 9))
    again.load_state_dict(json.loads(json.dumps(tracker.state_dict())))
    assert again.state_dict() == tracker.state_dict()
    assert again.counts == tracker.counts


def replaced(episode: Any) -> Any:
    episode.task += " other"
    return episode


@pytest.mark.parametrize("bad", [{}, {"counts": 1, "responses": {}}, {"counts": {"a": [1]}, "responses": {}}])
def test_other_state_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not saved values of tasks"):
        ValueTracker("v").load_state_dict(bad)


def test_seeds_tell_tasks_apart() -> None:
    found = episodes()
    found[0].task_seed = 7
    tracker = replace(ValueTracker("v"))
    tracker.observe(scored(build_rows(found).batch), Moment(0, 9))
    assert set(tracker.counts) == {*KEYS, "7 0"}
