"""Knapsack as a plug-in: budgets of an iteration, bounds, training, resuming."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import assert_resumes, played, train_rows
from support.updates import build, episodes

from palaestra.envs.tasks import Task
from palaestra.errors import CheckpointError, ConfigError
from palaestra.training.plugins.knapsack import KnapsackAllocator
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.success_rates import SuccessRates
from palaestra.training.task_key import key_of

MOMENT = Moment(1, 9)


def tasks(count: int) -> list[Task]:
    return [Task(env="a/A-v0", name=str(number)) for number in range(count)]


def rates(**known: tuple[float, float]) -> SuccessRates:
    found = SuccessRates()
    found.load_state_dict({"counts": {f"0 {name[1:]}": counts for name, counts in known.items()}})
    return found


def test_tasks_never_seen_have_the_group_size() -> None:
    found = KnapsackAllocator(SuccessRates())(tasks(3), 6, MOMENT)
    assert found.rollouts == [6, 6, 6]
    assert found.log == {"knapsack_known": 0, "knapsack_rate": None, "knapsack_mixed": None}


def test_the_others_share_what_is_left() -> None:
    known = rates(_0=(4, 4), _1=(1, 4), _3=(0, 4))
    found = KnapsackAllocator(known)(tasks(4), 4, MOMENT)
    assert found.rollouts == [2, 8, 4, 2]
    assert found.log["knapsack_known"] == 0.75
    assert found.log["knapsack_rate"] == pytest.approx(5 / 12)
    assert found.log["knapsack_mixed"] == pytest.approx((1 - 0.25**8 - 0.75**8) / 3)


@given(
    st.lists(st.none() | st.integers(0, 8), min_size=1, max_size=9),
    st.integers(2, 9),
    st.integers(2, 9),
    st.integers(0, 30),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_the_budget_is_spent_within_the_bounds(
    wins: list[int | None], size: int, low: int, above: int, share: float
) -> None:
    low, known = min(low, size), rates(**{f"_{n}": (w, 8) for n, w in enumerate(wins) if w is not None})
    found = KnapsackAllocator(known, low, size + above, share)(tasks(len(wins)), size, MOMENT).rollouts
    assert sum(found) == size * len(wins)
    assert all(low <= count <= size + above for count in found)
    assert all(count == size for count, win in zip(found, wins, strict=True) if win is None)
    if share == 0:
        assert set(found) == {size}


def test_rates_are_those_of_the_last_visit() -> None:
    found = SuccessRates()
    batch = build_rows(episodes()).batch  # rewards 0101 1001 1111
    found.observe(batch, MOMENT)
    assert [found.rate(f"0 {task}") for task in range(4)] == [0.5, 0.5, 1.0, None]
    found.observe(build_rows(episodes((0, 0, 0, 1))).batch, MOMENT)
    assert [found.rate(f"0 {task}") for task in range(3)] == [0.25, 0.5, 1.0]
    slow = SuccessRates(memory=0.5)
    slow.observe(batch, MOMENT)
    slow.observe(build_rows(episodes((0, 0, 0, 1))).batch, MOMENT)
    assert slow.rate("0 0") == pytest.approx((0.5 * 2 + 1) / (0.5 * 4 + 4))


def test_rewards_of_another_scale_are_mapped_and_clipped() -> None:
    found = SuccessRates(low=-1, high=9)
    found.observe(build_rows(episodes((9, -1, 4, 4, 20, 20, -5, -5))).batch, MOMENT)
    assert [found.rate(f"0 {task}") for task in range(2)] == [0.5, 0.5]


def test_seeds_tell_tasks_apart() -> None:
    other = episodes()
    for episode in other[:4]:
        episode.task_seed = 3
    found = SuccessRates()
    found.observe(build_rows(other).batch, MOMENT)
    assert found.rate(key_of(Task(env="", name="0"))) is None
    assert found.rate(key_of(Task(env="", name="0", seed=3))) == 0.5


def test_penalties_and_filters_do_not_change_a_rate() -> None:
    batch = build_rows(episodes(), invalid_penalty=0.5).batch
    found = SuccessRates()
    found.observe(batch.with_(reward=batch.reward - 1).keeping(batch.traj < 4), MOMENT)
    assert [found.rate(f"0 {task}") for task in range(3)] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("bad", [{}, {"counts": 3}, {"counts": {"a": [1]}}])
def test_other_state_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="not saved success rates"):
        SuccessRates().load_state_dict(bad)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.group_size=1"], "rollout.group_size 1: the plug-in knapsack allocates 2 to 128"),
        (["algorithm.settings.knapsack={low: 9}"], "rollout.group_size 8: the plug-in knapsack allocates 9 to 128"),
        (["algorithm.settings.knapsack={high: 4}"], "allocates 2 to 4 episodes a task"),
        (["algorithm.settings.knapsack={low: 1}"], "low: expected `int` >= 2"),
        (["algorithm.settings.knapsack={reward_high: 0}"], "reward_low must be below reward_high"),
    ],
)
def test_bounds_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("algorithm.name=knapsack", *overrides)


def test_training_learns_and_spends_the_budget(tmp_path: Path) -> None:
    overrides = ["budget.iterations=40", "rollout.groups=4", "optimiser.lr=0.02", "algorithm.settings.knapsack.high=10"]
    rows = train_rows(tmp_path, "algorithm.name=knapsack", *overrides)
    success = [row["success"] for row in rows]
    assert sum(success[:3]) / 3 < 0.5
    assert sum(success[-5:]) / 5 > 0.9
    assert (rows[0]["rollouts_min"], rows[0]["rollouts_max"], rows[0]["knapsack_known"]) == (4, 4, 0)
    assert any(row["rollouts_min"] < 4 < row["rollouts_max"] for row in rows)
    sizes = [Counter(t.group for t in part) for part in played(tmp_path)]
    for row, counts in zip(rows, sizes, strict=True):
        assert sum(counts.values()) == 16
        assert len(counts) == 4
        assert (min(counts.values()), max(counts.values())) == (row["rollouts_min"], row["rollouts_max"])
        assert all(2 <= count <= 10 for count in counts.values())


def test_a_resumed_run_allocates_what_an_undisturbed_one_would(tmp_path: Path) -> None:
    assert_resumes(tmp_path, "algorithm.name=knapsack", "rollout.groups=6")
    assert any(len(set(Counter(t.group for t in part).values())) > 1 for part in played(tmp_path / "whole"))


def test_it_allocates_what_spo_chooses(tmp_path: Path) -> None:
    mix = ["algorithm.name=spo", "algorithm.plugins=[spo_tracker, knapsack]", "rollout.groups=6"]
    row = train_rows(tmp_path, *mix)[-1]
    assert {"tasks_known", "rollouts_max", "spo_value", "knapsack_mixed"} <= set(row)
