"""What of a run directory is kept: one small JSON object."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.learning.study import Job
from palaestra.agents.models import resolve_model
from palaestra.errors import DataError
from palaestra.files import replace_text

COLUMNS = (
    "success",
    "reward",
    "length",
    "invalid_rate",
    "entropy",
    "entropy_by_turn",
    "entropy_success",
    "entropy_failure",
    "clip_fraction",
    "dual_clip_fraction",
    "grad_norm",
    "approx_kl",
    "groups_with_signal",
    "branches",
    "branch_begin",
    "branch_top3",
    "branch_row",
    "rollout_seconds",
    "update_seconds",
)
"""Metrics of which every iteration's value is kept; those that a run does not have are left out."""
COSTS = ("train_seconds", "wall_seconds", "peak_rss_bytes", "env_steps", "tokens_generated", "tokens_trained")
DIGITS = 5


def make_record(job: Job, directory: Path) -> dict[str, Any]:
    """The record of a finished run.

    Raises:
        DataError: the run has not come to its end.
    """
    try:
        rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text("utf-8").splitlines()]
        summary = json.loads((directory / "summary.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{directory} holds no finished run: {error}") from error
    if summary.get("success_rl") is None:
        raise DataError(f"{directory} holds no finished run: it was not evaluated after training")
    train = [row for row in rows if row["kind"] == "train"]
    return {
        "environment": job.environment,
        "setting": job.setting,
        "seed": job.seed,
        "conditions": job.conditions(),
        "torch": version("torch"),
        "weights": base_hash(job),
        "base": summary["success_warm"],
        "test": summary["success_rl"],
        "validation": [{"iteration": row["iteration"], **row["success"]} for row in rows if row["kind"] == "eval"],
        "iterations": {
            key: [rounded(row.get(key)) for row in train]
            for key in COLUMNS
            if any(row.get(key) is not None for row in train)
        },
        "entropy_law": rounded(summary.get("entropy_law")),
        **{key: summary[key] for key in COSTS},
    }


def base_hash(job: Job) -> str:
    """SHA-256 of the weights that the run began with."""
    path, _ = resolve_model(job.conditions()["recipe"]["model"]["reference"])
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def write_record(job: Job, directory: Path, cpu_seconds: float | None = None) -> dict[str, Any]:
    """Make it and put it where the report finds it; `cpu_seconds` are those of the whole run, where they are known."""
    record = {**make_record(job, directory), "cpu_seconds": rounded(cpu_seconds)}
    job.record.parent.mkdir(parents=True, exist_ok=True)
    replace_text(job.record, json.dumps(record, separators=(",", ":")) + "\n")
    return record


def rounded(value: Any) -> Any:
    """Every float with `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {key: rounded(item) for key, item in value.items()} if isinstance(value, dict) else value
