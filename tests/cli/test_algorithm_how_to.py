"""The how-to page on adding an algorithm does what it says, typed as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from palaestra.training.metrics import read_metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-an-algorithm.md"
SHORT = ["budget.iterations=2", "rollout.groups=2", "rollout.group_size=4", "evaluation.test_episodes=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, each under the name in its first line."""
    found = tmp_path_factory.mktemp("howto")
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        name = block.splitlines()[0].removeprefix("# ")
        (found / name).write_text(block)
    return found


def run(folder: Path, *command: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_file_is_as_short_as_a_method_should_be(folder: Path) -> None:
    assert len((folder / "gauss_rank.py").read_text().splitlines()) < 120


def test_its_numbers_hold(folder: Path) -> None:
    assert "3 passed" in run(folder, "pytest", "-p", "no:cacheprovider", "test_gauss_rank.py")


def test_it_is_listed_as_the_page_shows(folder: Path) -> None:
    shown = run(folder, "palaestra", "algorithms", "gauss_rank", "--import", "gauss_rank.py")
    assert shown in re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_it_trains(folder: Path) -> None:
    run(folder, "palaestra", "train", "gauss_rank.yaml", "--import", "gauss_rank.py", *SHORT)
    rows = [row for row in read_metrics(folder / "runs" / "gauss-rank" / "metrics.jsonl") if row["kind"] == "train"]
    assert len(rows) == 2
    assert all(row["surrogate"] is not None for row in rows)
