"""The how-to page on curricula does what it says, typed as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from palaestra.training.metrics import read_metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "use-a-curriculum.md"
SHORT = ["budget.iterations=2", "rollout.groups=2", "rollout.group_size=4", "evaluation.test_episodes=0"]
SHORT += ["evaluation.every=0", "tasks.max_turns=3", "model.threads=1"]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(folder: Path, *command: str) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "palaestra", *command], cwd=folder, env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_recipe_trains_and_says_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(blocks("yaml")[0])
    run(tmp_path, "train", "ladder.yaml", *SHORT)
    directory = tmp_path / "runs" / "ladder"
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["level"] for row in rows] == [0.0, 0.0]
    assert [row["success_level_1"] for row in rows] == [None, None]
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["curriculum"]["level"] == 0
    assert len(summary["curriculum"]["success"]) == 2


def test_the_override_works_on_the_demo(tmp_path: Path) -> None:
    (override,) = re.findall(r"palaestra train demo (\S+?)='(.*)'", PAGE.read_text(encoding="utf-8"))
    run(tmp_path, "train", "demo", "=".join(override), *SHORT, "--out", "runs/demo")
    assert "curriculum" in json.loads((tmp_path / "runs" / "demo" / "summary.json").read_text())


def test_the_controller_does_what_the_page_says() -> None:
    exec(blocks("python")[0], {})
