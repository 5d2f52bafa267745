"""Runs of the levers environment that die, and go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.training.checkpoint import load_latest
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train

TIMES = ("elapsed", "rollout_seconds", "update_seconds", "rss_bytes")
OF_TRAINED_TOKENS = {"clip_fraction", "dual_clip_fraction", "approx_kl", "rollout_kl"}
"""Means over the policy tokens of an update, which an iteration may have none of."""
SHORT = ["budget.iterations=6", "checkpoint.every=2", "evaluation.test_episodes=0", "evaluation.every=0"]


class Killed(BaseException):
    """Stands for a death of the process."""


def outcome(directory: Path) -> tuple[dict[str, bytes], dict[str, Any], list[dict[str, Any]]]:
    """Every tensor and every state of the newest checkpoint, and the metrics without times."""
    checkpoint = load_latest(directory / "checkpoints")
    assert checkpoint is not None
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(directory / "metrics.jsonl")]
    groups = {"model": checkpoint.model, "optimiser": checkpoint.optimiser, **checkpoint.more}
    tensors = {f"{group}.{n}": v.numpy().tobytes() for group, named in groups.items() for n, v in named.items()}
    return tensors, checkpoint.state["algorithm"], rows


def assert_resumes(folder: Path, *overrides: str, after: int = 3) -> list[dict[str, Any]]:
    """A run that dies at the end of iteration `after` ends as one that nobody disturbed; the metrics of that."""
    register_levers()
    whole, broken = folder / "whole", folder / "broken"
    for each in (whole, broken):
        each.mkdir()
        save_tiny_model(each / "base")
    left = after

    def die(row: Mapping[str, Any]) -> None:
        nonlocal left
        left -= row["kind"] == "train"
        if left < 0:
            raise Killed

    train(levers_recipe(whole, *SHORT, *overrides))
    with pytest.raises(Killed):
        train(levers_recipe(broken, *SHORT, *overrides), progress=die)
    train(levers_recipe(broken, *SHORT, *overrides), resume=True)
    ours, theirs = outcome(broken / "run"), outcome(whole / "run")
    assert ours == theirs
    rows = [row for row in theirs[2] if row["kind"] == "train"]
    common = frozenset.intersection(*map(frozenset, rows))
    assert all(row.keys() - common <= OF_TRAINED_TOKENS for row in rows), "every row has the same keys"
    return rows
