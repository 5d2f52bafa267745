"""Dynamic sampling: groups are played until enough have a signal, or the rounds are used up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.levers import ENV, Levers, levers_recipe
from support.runs import assert_resumes, played, prepared, train_rows
from support.updates import build, episodes, learner

from palaestra.envs.core import Reset
from palaestra.envs.registry import register
from palaestra.errors import ConfigError, TrainingError
from palaestra.training.plugins.dynamic_sampling import UntilFull
from palaestra.training.plugins.uniform_groups import UniformGroups
from palaestra.training.rows import build_rows
from palaestra.training.run import train
from palaestra.training.seams import Moment

MOMENT = Moment(0, 9)
BATCH = build_rows(episodes()).batch  # rewards 0101 1001 1111: two groups of three have a signal
MIX = ["algorithm.name=grpo", "algorithm.plugins=[dynamic_sampling]"]


def test_it_asks_for_what_is_missing() -> None:
    refill = UntilFull(5, 3, UniformGroups())
    assert refill.missing(BATCH, MOMENT) == 3
    assert UntilFull(2, 3, UniformGroups()).missing(BATCH, MOMENT) == 0
    assert refill.missing(BATCH.with_(reward=torch.ones_like(BATCH.reward), episodes=None), MOMENT) == 5


def test_one_round_is_plain_filtering() -> None:
    once = build(*MIX, "algorithm.settings.dynamic_sampling.rounds=1").parts
    assert once.refill is None
    assert once.filters == (UniformGroups(),)
    never = build(*MIX, "algorithm.settings.dynamic_sampling.rounds=0").parts
    assert (never.refill, never.filters) == (None, ())
    filtered, plain = (
        learner("algorithm.name=grpo", f"algorithm.plugins=[{name}]").update(BATCH, MOMENT).batch.advantage
        for name in ("dynamic_sampling", "uniform_groups")
    )
    assert torch.equal(filtered, plain)  # type: ignore[arg-type]


def test_no_kept_group_is_without_advantage() -> None:
    batch = learner(*MIX).update(BATCH, MOMENT).batch
    assert batch.kept is not None
    assert batch.advantage is not None
    kept = set(batch.group[batch.kept].tolist())
    assert kept == {int(g) for g in batch.group if bool((batch.advantage[batch.group == g] != 0).any())}


def test_groups_of_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="rollout.group_size 1: the plug-in dynamic_sampling"):
        build(*MIX, "rollout.group_size=1")


def test_further_rounds_are_played_until_the_update_is_full(tmp_path: Path) -> None:
    overrides = ["rollout.groups=4", "rollout.group_size=2", "algorithm.settings.dynamic_sampling.rounds=4"]
    rows = train_rows(tmp_path, *MIX, *overrides)
    parts = played(tmp_path)
    for row, part in zip(rows, parts, strict=True):
        groups = Counter(t.group for t in part)
        assert len(groups) == row["groups_played"] == row["groups"]
        assert set(groups.values()) == {2}
        assert len({t.id for t in part}) == len(part)
        assert len({t.task for t in part}) == min(12, len(groups))
        rewards = {group: {t.total_reward for t in part if t.group == group} for group in groups}
        mixed = sum(len(values) > 1 for values in rewards.values())
        assert row["groups_with_signal"] == mixed <= 4
        assert row["rounds"] == 1 or len(groups) > 4
        assert mixed == 4 or row["rounds"] == 4
        assert row["groups_missing"] == 4 - mixed
    assert any(row["rounds"] > 1 for row in rows)
    assert sum(row["env_steps"] for row in rows) == 2 * sum(map(len, parts))


def test_a_resumed_run_plays_the_same_rounds(tmp_path: Path) -> None:
    assert_resumes(tmp_path, *MIX, "rollout.group_size=2")


def test_choosers_and_allocators_have_their_say_in_further_rounds(tmp_path: Path) -> None:
    mix = ["algorithm.name=knapsack", "algorithm.plugins=[spo_tracker, knapsack, dynamic_sampling]"]
    sampling = "algorithm.settings.spo_tracker.baseline=false"
    rows = train_rows(tmp_path, *mix, sampling, "rollout.group_size=2", "rollout.groups=4")
    for row, part in zip(rows, played(tmp_path), strict=True):
        assert len(part) == 2 * row["groups_played"]
        assert len({t.task for t in part}) == min(12, row["groups_played"])


def test_where_nothing_can_be_played_the_reason_is_named_after_the_last_round(tmp_path: Path) -> None:
    folder = prepared(tmp_path)

    class Broken(Levers):
        async def reset(self, **_: Any) -> Reset[str]:
            raise OSError("no levers here")

    register(ENV, Broken, override=True)
    with pytest.raises(
        TrainingError, match=r"iteration 0: no episode can be learned from .*'error': 36.*no levers here"
    ):
        train(levers_recipe(folder, *MIX, "evaluation.every=0", "evaluation.test_episodes=0"))
