"""Whole runs of the levers: their metrics, and whether they go on after a death."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.training.checkpoint import load_latest
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import read_trajectories

TIMES = ("elapsed", "rollout_seconds", "update_seconds", "rss_bytes")
PLAIN = ["evaluation.test_episodes=0", "evaluation.every=0"]


class Killed(BaseException):
    """Stands for a death of the process."""


def prepared(folder: Path) -> Path:
    """`folder` with a base model in it, for `levers_recipe`."""
    register_levers()
    folder.mkdir(exist_ok=True)
    save_tiny_model(folder / "base")
    return folder


def train_rows(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train without evaluations, and return the metrics."""
    result = train(levers_recipe(prepared(folder), *PLAIN, *overrides))
    return list(read_metrics(result.directory / "metrics.jsonl"))


def played(folder: Path) -> list[list[Trajectory]]:
    """What the run in `folder` played, by iteration."""
    found: dict[int, list[Trajectory]] = {}
    for trajectory in read_trajectories(folder / "run" / "trajectories" / "train.ptj"):
        found.setdefault(trajectory.meta["iteration"], []).append(trajectory)
    return [found[iteration] for iteration in sorted(found)]


def outcome(directory: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Weights of the newest checkpoint, and the metrics without times."""
    checkpoint = load_latest(directory / "checkpoints")
    assert checkpoint is not None
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(directory / "metrics.jsonl")]
    return {name: value.numpy().tobytes() for name, value in checkpoint.model.items()}, rows


def assert_resumes(folder: Path, *overrides: str, after: int = 5) -> None:
    """A run that dies after `after` of 8 iterations, and goes on, ends as `folder/whole`, which was never disturbed."""
    settings = [*PLAIN, "budget.iterations=8", "checkpoint.every=2", *overrides]
    whole, broken = prepared(folder / "whole"), prepared(folder / "broken")
    left = after

    def die(row: Mapping[str, Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    train(levers_recipe(whole, *settings))
    with pytest.raises(Killed):
        train(levers_recipe(broken, *settings), progress=die)
    train(levers_recipe(broken, *settings), resume=True)
    assert outcome(broken / "run") == outcome(whole / "run")
    assert [t.id for part in played(broken) for t in part] == [t.id for part in played(whole) for t in part]
    assert [t.task for part in played(broken) for t in part] == [t.task for part in played(whole) for t in part]
