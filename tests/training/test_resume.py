"""A run that is killed at any moment and resumed ends as an undisturbed one, bit for bit."""

import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from support.envs import timeless
from support.levers import levers_recipe, register_levers, save_tiny_model
from support.tokens import tiny
from transformers import GPT2Config, GPT2LMHeadModel

from palaestra.errors import PalaestraError
from palaestra.training.checkpoint import list_checkpoints, load_latest
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train
from palaestra.trajectories.store import read_trajectories

TIMES = ("elapsed", "rollout_seconds", "update_seconds", "seconds", "rss_bytes")
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from support.levers import levers_recipe, register_levers
from palaestra.training.run import train
register_levers()
train(levers_recipe(Path({folder!r}), *{overrides!r}), resume={resume!r})
"""
LONG = ["budget.iterations=24", "checkpoint.every=3", "evaluation.test_episodes=0", "learner.mini_batches=2"]


class Killed(BaseException):
    """Stands for a death of the process."""


def outcome(directory: Path) -> dict[str, Any]:
    """Everything that a run leaves, apart from times."""
    checkpoint = load_latest(directory / "checkpoints")
    assert checkpoint is not None
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(directory / "metrics.jsonl")]
    return {
        "model": {name: value.numpy().tobytes() for name, value in checkpoint.model.items()},
        "optimiser": {name: value.numpy().tobytes() for name, value in checkpoint.optimiser.items()},
        "algorithm": checkpoint.state["algorithm"],
        "metrics": rows,
        "trajectories": [
            msgspec.to_builtins(t) for t in timeless(list(read_trajectories(directory / "trajectories" / "train.ptj")))
        ],
        "final": (directory / "model" / "model.safetensors").read_bytes(),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    register_levers()
    save_tiny_model(folder / "base")
    return outcome(train(levers_recipe(folder, *LONG)).directory)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    register_levers()
    save_tiny_model(tmp_path / "base")
    return tmp_path


def launch(folder: Path, *, resume: bool) -> "subprocess.Popen[bytes]":
    tests = str(Path(__file__).parents[1])
    script = SCRIPT.format(tests=tests, folder=str(folder), overrides=LONG, resume=resume)
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)


def wait_for_rows(path: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < count):
        time.sleep(0.002)


@pytest.mark.slow
def test_kill_9_at_random_moments(folder: Path, undisturbed: dict[str, Any]) -> None:
    draw = random.Random(0)
    metrics = folder / "run" / "metrics.jsonl"
    killed = 0
    for rows in (2, 7, 12):
        process = launch(folder, resume=True)
        wait_for_rows(metrics, rows, process)
        time.sleep(draw.random() * 0.15)
        process.kill()
        process.wait()
        killed += process.returncode == -9
        process.stderr.close()  # type: ignore[union-attr]
    assert killed, "where the machine is busy a run may end before it is killed, but not each"
    process = launch(folder, resume=True)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert outcome(folder / "run") == undisturbed


@pytest.mark.parametrize("moment", [0, 1, 4, 8, 25, 30])
def test_a_death_after_any_row_of_metrics(folder: Path, undisturbed: dict[str, Any], moment: int) -> None:
    left = moment

    def die(row: Mapping[str, Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    with pytest.raises(Killed):
        train(levers_recipe(folder, *LONG), progress=die)
    train(levers_recipe(folder, *LONG), resume=True)
    assert outcome(folder / "run") == undisturbed


def test_a_damaged_newest_checkpoint_costs_time_only(folder: Path, undisturbed: dict[str, Any]) -> None:
    def die(row: Mapping[str, Any]) -> None:
        if row["iteration"] == 10:
            raise Killed

    with pytest.raises(Killed):
        train(levers_recipe(folder, *LONG), progress=die)
    newest = list_checkpoints(folder / "run" / "checkpoints")[-1]
    (newest / "model.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="trying the one before"):
        train(levers_recipe(folder, *LONG), resume=True)
    assert outcome(folder / "run") == undisturbed


def test_dropout_in_the_base_model_and_recomputed_activations(folder: Path) -> None:
    """A model whose configuration asks for dropout, in training mode: no draw of torch's own may enter."""
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tiny()), n_embd=16, n_layer=1, n_head=2, n_positions=256, bos_token_id=0, eos_token_id=0
        )
    ).save_pretrained(folder / "base")
    more = [*LONG, "budget.iterations=5", "learner.gradient_checkpointing=true"]
    expected = outcome(train(levers_recipe(folder, *more, f"out={folder / 'whole'}")).directory)

    def die(row: Mapping[str, Any]) -> None:
        torch.rand(1)  # the whole run's generator stands elsewhere
        if row["iteration"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(levers_recipe(folder, *more), progress=die)
    train(levers_recipe(folder, *more), resume=True)
    assert outcome(folder / "run") == expected


def test_resuming_a_finished_run_changes_nothing(folder: Path) -> None:
    short = ["budget.iterations=2", "evaluation.test_episodes=0"]
    before = outcome(train(levers_recipe(folder, *short)).directory)
    assert outcome(train(levers_recipe(folder, *short), resume=True).directory) == before


def test_a_full_disk_leaves_a_run_that_can_be_resumed(folder: Path, undisturbed: dict[str, Any]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row: Mapping[str, Any]) -> None:
        if row["kind"] == "train" and row["iteration"] == 7:
            size = (folder / "run" / "metrics.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    try:
        with pytest.raises(PalaestraError, match=r"cannot write .*: File too large"):
            train(levers_recipe(folder, *LONG), progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    train(levers_recipe(folder, *LONG), resume=True)
    assert outcome(folder / "run") == undisturbed
