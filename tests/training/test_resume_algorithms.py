"""A run with each of the shapers, filters and policy losses goes on after a death as if there had been none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.training.checkpoint import load_latest
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train

TIMES = ("elapsed", "rollout_seconds", "update_seconds", "rss_bytes")
SHORT = ["budget.iterations=6", "checkpoint.every=2", "evaluation.test_episodes=0", "evaluation.every=0"]

SPEAR = [
    "algorithm.name=spear",
    "algorithm.settings.self_imitation.warmup=2",
    "algorithm.settings.self_imitation.replayed=5",
    "algorithm.settings.tool_reward.decay=4",
]


class Killed(BaseException):
    """Stands for a death of the process."""


def outcome(directory: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    checkpoint = load_latest(directory / "checkpoints")
    assert checkpoint is not None
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(directory / "metrics.jsonl")]
    return {name: value.numpy().tobytes() for name, value in checkpoint.model.items()}, rows


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm.name=dapo"],
        ["algorithm.name=aepo", "learner.epochs=2"],
        ["algorithm.name=aepo", "algorithm.settings.aepo.branching=true", "rollout.group_size=6"],
        [
            "algorithm.name=epo",
            "algorithm.plugins=[epo, empg]",
            "algorithm.policy_loss=span_ratio",
            "learner.mini_batches=2",
        ],
        [*SPEAR, "learner.mini_batches=2"],
        [*SPEAR, "algorithm.settings.self_imitation.separate_steps=true", "algorithm.settings.self_imitation.low=0"],
        ["algorithm.name=grpo", "algorithm.plugins=[kl_cov]", "learner.mini_batches=2"],
        [
            "algorithm.name=grpo",
            "algorithm.plugins=[entropy_topk, steer, clip_b, mpt_mask, lp_reg, siren, adaptive_entropy, entrocraft]",
            "algorithm.settings.mpt_mask={unit: first, sigma: 0.9}",
            "algorithm.settings.adaptive_entropy.start=0.01",
            "learner.mini_batches=2",
        ],
    ],
    ids=["dapo", "aepo", "both halves", "epo+empg+span_ratio", "spear", "spear, separate steps", "kl_cov", "tokens"],
)
def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path, overrides: list[str]) -> None:
    register_levers()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        save_tiny_model(folder / "base")
    left = 4

    def die(row: Mapping[str, Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    train(levers_recipe(whole, *SHORT, *overrides))
    with pytest.raises(Killed):
        train(levers_recipe(broken, *SHORT, *overrides), progress=die)
    train(levers_recipe(broken, *SHORT, *overrides), resume=True)
    assert outcome(broken / "run") == outcome(whole / "run")
    keys = {frozenset(row) for row in read_metrics(whole / "run" / "metrics.jsonl")}
    assert len(keys) == 1, "every row has the same keys"
