"""A run by torchrun: shared out, killed, and gone on with by another number of ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.config import to_yaml
from palaestra.training.checkpoint import list_checkpoints
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS = ["checkpoint.every=1", "evaluation.test_episodes=0", "evaluation.every=0", "learner.shard=true"]
IMPORTED = "from support.levers import register_levers\n\nregister_levers()\n"


def launch(folder: Path) -> subprocess.Popen[str]:
    """Two ranks; what they say goes to `said`."""
    recipe, module = folder / "recipe.yaml", folder / "levers.py"
    recipe.write_text(to_yaml(levers_recipe(folder, "budget.iterations=500", *SETTINGS)))
    module.write_text(IMPORTED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    command = [*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "palaestra", "train"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with (folder / "said").open("w") as said:
        return subprocess.Popen(
            [*command, str(recipe), "--import", str(module)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def ranks_of(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    found = {}
    for child in psutil.Process(process.pid).children():
        found[int(child.environ().get("RANK", "-1"))] = child
    return found


def test_a_killed_rank_ends_the_run_and_others_go_on_with_it(tmp_path: Path) -> None:
    register_levers()
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for each in (broken, whole):
        each.mkdir()
        save_tiny_model(each / "base")
    process = launch(broken)
    checkpoints = broken / "run" / "checkpoints"
    try:
        while process.poll() is None and len(list_checkpoints(checkpoints)) < 2:
            time.sleep(0.1)
        assert process.poll() is None, (broken / "said").read_text()
        os.kill(ranks_of(process)[1].pid, signal.SIGKILL)
        assert process.wait(120) != 0
    finally:
        process.kill()
        process.wait()
    said = (broken / "said").read_text()
    assert "another was lost" in said or "SIGKILL" in said or "Signal 9" in said, said
    done = int(list_checkpoints(checkpoints)[-1].name)
    assert (list_checkpoints(checkpoints)[-1] / "shards").is_dir(), "each rank wrote its part"
    goal = f"budget.iterations={done + 2}"
    assert train(levers_recipe(broken, goal, *SETTINGS), resume=True).stopped == "iterations"
    train(levers_recipe(whole, goal, *SETTINGS))
    ours, theirs = (list(read_metrics(each / "run" / "metrics.jsonl")) for each in (broken, whole))
    assert [row["iteration"] for row in ours] == [row["iteration"] for row in theirs]
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert a["reward"] == b["reward"]
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
