"""Asynchronous runs of two ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.levers import levers_recipe, register_levers
from support.ranks import in_ranks
from support.runs import PLAIN, played, prepared, train_rows

from palaestra.training.checkpoint import load_latest
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ASYNC = ["trainer.mode=async", "evaluation.every=2", "evaluation.episodes=2"]


def runs(folder: str, each: list[list[str]]) -> list[str]:
    """Why each of some runs ended."""
    register_levers()
    return [
        train(levers_recipe(Path(folder) / str(number), *PLAIN, *overrides)).stopped
        for number, overrides in enumerate(each)
    ]


def updates(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder / "run" / "metrics.jsonl") if row["kind"] == "train"]


def test_two_ranks_listen_to_one_collector(tmp_path: Path) -> None:
    still = [*ASYNC, "trainer.staleness=0", "learner.shard=true"]
    ahead = [*ASYNC, "trainer.staleness=2", "budget.iterations=6", "checkpoint.every=2"]
    arguments = [str(tmp_path), [still, ahead]]
    for number in range(2):
        prepared(tmp_path / str(number))
    (tmp_path / "meeting").mkdir()
    assert in_ranks(runs, arguments, tmp_path / "meeting") == [["iterations", "iterations"]] * 2

    alone = [row for row in train_rows(tmp_path / "alone") if row["kind"] == "train"]
    for row, other in zip(updates(tmp_path / "0"), alone, strict=True):
        assert row["reward"] == other["reward"]
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    ids = [[t.id for t in iteration] for iteration in played(tmp_path / "alone")]
    assert [[t.id for t in iteration] for iteration in played(tmp_path / "0")] == ids

    rows = updates(tmp_path / "1")
    assert [row["iteration"] for row in rows] == list(range(6))
    assert 0 < max(row["staleness_max"] for row in rows) <= 2
    groups = [t.group for iteration in played(tmp_path / "1") for t in iteration]
    assert sorted(groups) == sorted(f"{i}/{g}" for i in range(6) for g in range(3) for _ in range(4))

    more = levers_recipe(tmp_path / "1", *PLAIN, *ahead, "budget.iterations=8")
    assert train(more, resume=True).stopped == "iterations"
    assert load_latest(tmp_path / "1" / "run" / "checkpoints").iteration == 8  # type: ignore[union-attr]
