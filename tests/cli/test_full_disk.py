"""A disk that fills up, and places that cannot be written: one line that names the file, and nothing is lost."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command import at, complaint, disk_that_fills, write_recipe

import palaestra.trajectories.report
from palaestra.agents.scripted import RandomAgent
from palaestra.cli.main import main
from palaestra.evaluation.result import EvalResult
from palaestra.training import checkpoint, directory, run
from palaestra.training.metrics import MetricsWriter
from palaestra.trajectories.store import TrajectoryWriter

Capture = pytest.CaptureFixture[str]

WRITES: dict[str, tuple[Any, str, int, str]] = {
    "recipe": (directory, "replace_text", 1, "run/recipe.yaml"),
    "warm episodes": (TrajectoryWriter, "append", 2, "run/trajectories/eval-warm.ptj"),
    "warm result": (EvalResult, "save", 1, "run/eval/warm.json"),
    "episodes": (TrajectoryWriter, "append", 20, "run/trajectories/train.ptj"),
    "metrics": (MetricsWriter, "write", 2, "run/metrics.jsonl"),
    "first checkpoint": (checkpoint, "_write_files", 1, "run/checkpoints/000001"),
    "checkpoint": (checkpoint, "_write_files", 2, "run/checkpoints/000002"),
    "model": (run, "save_model", 1, "run/model"),
    "final episodes": (RandomAgent, "session", 1, "run/trajectories/eval-random.ptj"),
    "summary": (run, "_write_summary", 1, "run/summary.json"),
    "report": (palaestra.trajectories.report, "write_report", 1, "run/report.html"),
}
"""What is about to be written, the how manieth time, and the file that the line must name."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(["train", str(write_recipe(folder))]) == 0
    return weights(folder)


def weights(folder: Path) -> bytes:
    return (folder / "run" / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("write", WRITES)
def test_training_goes_on_once_there_is_room(
    write: str, recipe: Path, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    owner, name, call, file = WRITES[write]
    with monkeypatch.context() as patch, disk_that_fills() as fill:
        at(patch, owner, name, fill, call)
        said = complaint(capsys, "train", str(recipe))
    assert str(recipe.parent / file) in said
    assert "File too large" in said
    assert main(["train", str(recipe), "--resume"]) == 0
    assert weights(recipe.parent) == undisturbed
    assert not list((recipe.parent / "run").rglob("*.partial"))


def test_a_model_that_cannot_be_replaced_stays(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert main(["train", str(recipe)]) == 0
    before = weights(recipe.parent)
    with monkeypatch.context() as patch, disk_that_fills() as fill:
        at(patch, run, "save_model", fill)
        complaint(capsys, "train", str(recipe), "budget.iterations=4", "--resume")
    assert weights(recipe.parent) == before


def test_an_evaluation_goes_on_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    command = ["eval", "alfworld:test", "--agent", "random", "--episodes", "6", "--out", str(tmp_path)]
    with monkeypatch.context() as patch, disk_that_fills() as fill:
        at(patch, TrajectoryWriter, "append", fill, 3)
        assert "eval-random-alfworld-test.ptj: File too large" in complaint(capsys, *command)
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    with disk_that_fills() as fill:
        fill()
        assert "report.html: File too large" in complaint(capsys, "report", str(tmp_path))


def mount(folder: Path, options: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    mount(folder, "size=4m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    mount(folder, "ro")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.integration
@pytest.mark.parametrize("spare", [0, 8192, 40_960, 120_000, 200_000, 300_000])
def test_a_disk_that_is_really_full(
    spare: int, recipe: Path, undisturbed: bytes, small_disk: Path, capsys: Capture
) -> None:
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(free - spare))
    command = ["train", str(recipe), "--out", str(small_disk / "run")]
    assert "No space left on device" in complaint(capsys, *command)
    ballast.unlink()
    assert main([*command, "--resume"]) == 0
    assert weights(small_disk) == undisturbed


@pytest.mark.integration
def test_a_disk_that_cannot_be_written(recipe: Path, frozen_disk: Path, capsys: Capture) -> None:
    place = str(frozen_disk / "run")
    said = complaint(capsys, "train", str(recipe), "--out", place)
    assert said == f"palaestra: cannot write run directory {place}: Read-only file system; choose another with out="
    evaluate = ("eval", "alfworld:test", "--agent", "oracle", "--episodes", "1")
    assert "Read-only file system" in complaint(capsys, *evaluate, "--out", place)
    assert main(["train", str(recipe), "budget.iterations=1"]) == 0
    capsys.readouterr()
    said = complaint(capsys, "report", str(recipe.parent / "run"), "--out", f"{place}.html")
    assert said == f"palaestra: cannot write {place}.html: Read-only file system"


@pytest.mark.parametrize("below", ["", "/run"])
def test_a_file_is_no_directory(below: str, recipe: Path, capsys: Capture) -> None:
    file = recipe.parent / "file"
    file.write_text("mine")
    place = f"{file}{below}"
    said = complaint(capsys, "train", str(recipe), "--out", place)
    assert said.startswith(f"palaestra: cannot write run directory {place}: ")
    assert "choose another" in said
    assert place in complaint(capsys, "eval", "alfworld:test", "--agent", "oracle", "--episodes", "1", "--out", place)
    assert str(file) in complaint(capsys, "demo", "--quick", "--out", f"{file}/run")
    assert file.read_text() == "mine"
