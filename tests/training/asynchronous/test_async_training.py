"""Whole asynchronous runs of the levers."""

import asyncio
import gc
import time
from pathlib import Path
from typing import Any

import pytest
from support.levers import ENV, Levers, levers_recipe
from support.resuming import TIMES
from support.runs import PLAIN, played, prepared, train_rows

from palaestra.envs.core import Step
from palaestra.envs.registry import register
from palaestra.errors import PalaestraError
from palaestra.training import trainer
from palaestra.training.asynchronous.staleness import staleness_histogram
from palaestra.training.checkpoint import load_latest, save_checkpoint
from palaestra.training.run import train


def weights(folder: Path) -> dict[str, bytes]:
    checkpoint = load_latest(folder / "run" / "checkpoints")
    assert checkpoint is not None
    return {name: value.numpy().tobytes() for name, value in checkpoint.model.items()}


@pytest.mark.parametrize(
    "more",
    [
        ["algorithm.name=epo", "learner.mini_batches=2", "evaluation.every=2"],
        ["algorithm.name=grpo", "algorithm.plugins=[dynamic_sampling]"],
        ["algorithm.name=aepo", "algorithm.plugins=[aepo, branching]", "agent.action=text"],
    ],
    ids=["epo", "refill", "tree"],
)
def test_at_staleness_0_it_is_the_synchronous_trainer(tmp_path: Path, more: list[str]) -> None:
    expected = train_rows(tmp_path / "sync", *more)
    rows = train_rows(tmp_path / "async", *more, "trainer.mode=async", "trainer.staleness=0")
    for row, other in zip(rows, expected, strict=True):
        times = {*TIMES, "seconds"}
        assert {k: row[k] for k in other if k not in times} == {k: v for k, v in other.items() if k not in times}
    assert all(row["staleness"] == {"0": row["tokens_generated"]} for row in rows if row["kind"] == "train")
    assert weights(tmp_path / "async") == weights(tmp_path / "sync")
    ids = [[t.id for t in iteration] for iteration in played(tmp_path / "sync")]
    assert [[t.id for t in iteration] for iteration in played(tmp_path / "async")] == ids


@pytest.mark.parametrize("staleness", [1, 3])
def test_rollouts_run_ahead_within_the_bound(tmp_path: Path, staleness: int) -> None:
    rows = train_rows(tmp_path, "trainer.mode=async", f"trainer.staleness={staleness}", "budget.iterations=8")
    assert [row["iteration"] for row in rows] == list(range(8))
    assert all(row["staleness_max"] <= staleness for row in rows)
    assert max(row["staleness_max"] for row in rows) == staleness
    assert all(sum(row["staleness"].values()) == row["tokens_generated"] for row in rows)
    assert 0 < rows[-1]["mismatch_sample_size"] <= 1
    groups = [t.group for iteration in played(tmp_path) for t in iteration]
    assert sorted(groups) == sorted(f"{i}/{g}" for i in range(8) for g in range(3) for _ in range(4))
    for iteration, trajectories in enumerate(played(tmp_path)):
        assert max(staleness_histogram(trajectories, iteration)) <= staleness


def test_it_learns(tmp_path: Path) -> None:
    more = ["algorithm.name=grpo", "optimiser.lr=0.02", "budget.iterations=40", "rollout.groups=4"]
    rows = train_rows(tmp_path, *more, "trainer.mode=async", "trainer.staleness=2")
    success = [row["success"] for row in rows]
    assert sum(success[:3]) / 3 < 0.5
    assert sum(success[-5:]) / 5 > 0.9


def test_a_run_that_dies_before_it_trains_leaves_no_file_open(tmp_path: Path) -> None:
    def dies(row: Any) -> None:
        raise PalaestraError("dead")

    with pytest.raises(PalaestraError, match="dead"):
        train(levers_recipe(prepared(tmp_path), "trainer.mode=async"), progress=dies)
    gc.collect()  # what is open still is a warning, and warnings are errors here


def test_a_slow_checkpoint_ends_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Levers):
        async def step(self, action: str) -> Step[str]:
            await asyncio.sleep(0.05)
            return await super().step(action)

    def save(*args: Any, **more: Any) -> Path:
        time.sleep(1)
        return save_checkpoint(*args, **more)

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    overrides = ["trainer.mode=async", "budget.iterations=3", "checkpoint.every=1", "rollout.step_seconds=0.4"]
    recipe = levers_recipe(prepared(tmp_path), *PLAIN, *overrides)
    register(ENV, Slow, override=True)
    train(recipe)
    found = [trajectory for iteration in played(tmp_path) for trajectory in iteration]
    assert {(trajectory.status, trajectory.attempt) for trajectory in found} == {("ok", 0)}
