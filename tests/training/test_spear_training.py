"""SPEAR from end to end: a run on a short game that replays what went well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.training.checkpoint import load_latest
from palaestra.training.curriculum import imitation_weight, tool_call_weight
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train

OWN = "algorithm.settings.self_imitation"
OPTIONS = [
    *("algorithm.name=spear", f"{OWN}.warmup=3", f"{OWN}.tolerate=1", f"{OWN}.replayed=6", f"{OWN}.low=0"),
    *("algorithm.settings.tool_reward.decay=4", "learner.mini_batches=2", "budget.iterations=6"),
    *("evaluation.every=0", "evaluation.test_episodes=0"),
]


def run(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    register_levers()
    save_tiny_model(folder / "base")
    train(levers_recipe(folder, *OPTIONS, *overrides))
    return [row for row in read_metrics(folder / "run" / "metrics.jsonl") if row["kind"] == "train"]


def test_a_run_replays_what_went_well(tmp_path: Path) -> None:
    rows = run(tmp_path)
    assert [row["tool_weight"] for row in rows] == [tool_call_weight(t, 4) for t in range(6)]
    assert [row["sil_weight"] for row in rows] == [imitation_weight(t, 3) for t in range(6)]
    assert rows[0]["sil_replayed"] == 0, "gamma(0) is 0"
    replayed = [row["sil_replayed"] for row in rows[1:]]
    assert max(replayed) > 0
    assert all(0 <= count <= 6 for count in replayed)
    for row in rows:
        assert 0 <= row["sil_clip_fraction"] <= 1
        assert row["sil_clip_cov_picked"] <= row["sil_clip_cov_eligible"]
        assert row["sil_age"] <= 1, "tolerate"
        assert row["sil_surrogate"] <= 0 or row["sil_replayed"] == 0
        assert (row["sil_surrogate"] != 0) == (row["sil_replayed"] > 0)
        assert row["sil_replayed"] <= row["sil_buffer"]
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    saved = checkpoint.state["algorithm"]["trackers"]["self_imitation"]
    assert len(saved["episodes"]["entries"]) == rows[-1]["sil_buffer"]
    assert {each["step"] for each in saved["episodes"]["entries"]} <= {4, 5}
    assert sum(map(len, saved["means"]["steps"])) == sum(map(len, saved["stds"]["steps"])) == 6 * 2, "2 of 3 groups"


def test_without_imitation_the_same_episodes_are_played_at_first_and_learned_from_otherwise(tmp_path: Path) -> None:
    with_, without = tmp_path / "with", tmp_path / "without"
    for folder in (with_, without):
        folder.mkdir()
    ours, base = run(with_), run(without, f"{OWN}.coef=0")
    assert ours[0]["loss"] == base[0]["loss"]
    assert ours[1]["grad_norm"] != base[1]["grad_norm"]
    assert not any(key.startswith("sil_") for key in base[0])
