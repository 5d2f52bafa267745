"""SPO as a plug-in: advantages, refusals, training, resuming."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import assert_resumes, played, train_rows
from support.updates import build, episodes, learner

from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.plugins.spo_tracker import SpoAdvantage, standardised
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.value_tracker import ValueTracker

BATCH = build_rows(episodes()).batch
SPO = ["algorithm.name=spo", "rollout.groups=4", "rollout.group_size=1"]


def per_episode(batch: Batch, advantage: torch.Tensor) -> torch.Tensor:
    count = batch.mask.sum(1)
    mean = torch.where(batch.mask, advantage, 0).sum(1) / count
    torch.testing.assert_close(torch.where(batch.mask, mean[:, None], 0.0), advantage)
    return mean


def test_the_advantage_is_the_outcome_less_the_value_over_the_whole_batch() -> None:
    values = ValueTracker("v", counts={"0 0": (1.0, 3.0), "0 2": (3.0, 1.0)})
    found = per_episode(BATCH, SpoAdvantage(values)(BATCH))
    value = torch.tensor([0.25] * 4 + [0.5] * 4 + [0.75] * 4, dtype=torch.float64)
    surprise = BATCH.reward - value
    expected = (surprise - surprise.mean()) / (surprise.std() + 1e-8)
    torch.testing.assert_close(found, expected.float())


def test_it_is_the_value_before_the_visit_that_counts() -> None:
    """Whether the tracker moves in the same step makes no difference to the step's advantage."""
    still, moving = learner("algorithm.name=spo"), learner("algorithm.name=spo")
    for iteration in range(3):
        batch, moment = build_rows(episodes(seed=iteration)).batch, Moment(iteration, 3)
        before = still.algorithm.state_dict()
        prepared = still.prepared(batch, moment).advantage
        assert still.algorithm.state_dict() == before
        still.update(batch, moment)
        updated = moving.update(batch, moment).batch.advantage
        assert prepared is not None
        assert updated is not None
        assert torch.equal(prepared, updated)


@given(st.lists(st.floats(-1, 1), max_size=20))
@settings(deadline=None)
def test_standardised_surprises_have_mean_0_and_deviation_1(values: list[float]) -> None:
    surprise = torch.tensor(values, dtype=torch.float64)
    found = standardised(surprise, torch.ones(len(values), dtype=torch.bool))
    assert found.isfinite().all()
    if len(values) < 2 or len(set(values)) == 1:
        assert not found.any()
    elif float(surprise.std()) > 1e-3:
        assert float(found.mean()) == pytest.approx(0, abs=1e-9)
        assert float(found.std()) == pytest.approx(1, abs=1e-4)


def test_what_is_left_out_has_no_part_in_mean_and_deviation() -> None:
    advantage = SpoAdvantage(ValueTracker("v"))
    alone = advantage(build_rows(episodes()[:8]).batch)
    found = advantage(BATCH.keeping(BATCH.traj < 8))
    width = alone.shape[1]
    torch.testing.assert_close(found[:8, :width], alone, atol=1e-6, rtol=0)


def test_one_episode_a_task_is_enough() -> None:
    build("algorithm.name=spo", "rollout.group_size=1")
    build("algorithm.name=grpo", "algorithm.plugins=[spo_tracker]", "rollout.group_size=1")
    with pytest.raises(ConfigError, match="rollout.group_size 1 gives every episode advantage 0"):
        build("algorithm.name=spo", "algorithm.settings.spo_tracker.baseline=false", "rollout.group_size=1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{rho_min: 0.9, rho_max: 0.8}", "rho_min must not be above rho_max"),
        ("{reward_low: 1}", "reward_low must be below reward_high"),
        ("{d_half: 0}", r"d_half: expected `float` > 0.0"),
        ("{rho_min: 0}", r"rho_min: expected `float` > 0.0"),
        ("{floor: 0}", r"floor: expected `float` > 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("algorithm.name=spo", f"algorithm.settings.spo_tracker={settings}")


def test_each_half_works_on_its_own() -> None:
    baseline = build("algorithm.name=spo", "algorithm.settings.spo_tracker.sampling=false").parts
    assert baseline.chooser is None
    assert set(baseline.trackers) == {"spo_values"}
    sampling = build("algorithm.name=spo", "algorithm.settings.spo_tracker.baseline=false").parts
    assert sampling.advantage is None
    assert sampling.chooser is not None


def test_two_that_choose_tasks_or_advantages_are_refused() -> None:
    with pytest.raises(ConfigError, match="gigpo and spo_tracker each bring their own advantage"):
        build("algorithm.plugins=[gigpo, spo_tracker]", "algorithm.name=gigpo")


def test_training_learns_from_single_episodes(tmp_path: Path) -> None:
    overrides = ["budget.iterations=60", "rollout.groups=12", "rollout.group_size=1", "optimiser.lr=0.02"]
    rows = train_rows(tmp_path, "algorithm.name=spo", *overrides)
    success = [row["success"] for row in rows]
    assert sum(success[:3]) / 3 < 0.5
    assert sum(success[-5:]) / 5 > 0.9
    assert rows[0]["spo_value"] == 0.5
    assert rows[-1]["spo_value"] > 0.7
    assert rows[-1]["tasks_known"] == 12
    assert all(row["spo_drift"] is not None for row in rows[1:])


def test_a_resumed_run_chooses_what_an_undisturbed_one_would(tmp_path: Path) -> None:
    assert_resumes(tmp_path, *SPO)
    tasks = [[t.task for t in part] for part in played(tmp_path / "whole")]
    assert any(set(a) & set(b) for a, b in pairwise(tasks)), "a walk would not repeat itself"
