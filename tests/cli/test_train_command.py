"""`palaestra train` from recipe to report, its resuming, and Ctrl-C in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.cli.main import main
from palaestra.config import load_recipe, to_yaml
from palaestra.experiment import run_experiment, set_aside
from palaestra.memory import PeakMemory, peak_rss

# The child registers the test's environment and then is the command line.
CHILD = "import sys; from support.levers import register_levers; register_levers(); from palaestra.cli.main import main; sys.exit(main(sys.argv[1:]))"  # noqa: E501


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    register_levers()
    save_tiny_model(tmp_path / "base")
    path = tmp_path / "levers.yaml"
    path.write_text(to_yaml(levers_recipe(tmp_path)))
    return path


def test_train_leaves_everything(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recipe.parent / "elsewhere"
    assert main(["train", str(recipe), "seed=3", "--out", str(run), "budget.iterations=2"]) == 0
    shown = capsys.readouterr().out
    assert "iterations: 2" in shown
    assert f"report:  {run}/report.html" in shown
    summary = json.loads((run / "summary.json").read_text())
    assert summary["report"] == f"{run}/report.html"
    assert summary["seed"] == 3
    assert summary["peak_rss_bytes"] > 10_000_000
    assert summary["success_oracle"]["value"] == 1.0
    assert summary["entropy_law"]["reason"] == "2 different entropies beside a reward, and a fit needs 3"
    assert (run / "report.html").is_file()
    assert {file.stem for file in (run / "eval").iterdir()} == {"warm", "rl", "random", "oracle"}


def test_a_baseline_stands_beside_the_run(recipe: Path) -> None:
    overrides = ["budget.iterations=1", "evaluation.every=0"]
    own = load_recipe(recipe, ["algorithm.name=epo", f"out={recipe.parent / 'epo'}", *overrides])
    baseline = load_recipe(recipe, ["algorithm.name=grpo", f"out={recipe.parent / 'grpo'}", *overrides])
    outcome = run_experiment(own, baseline=baseline)
    other = json.loads((recipe.parent / "grpo" / "summary.json").read_text())
    assert outcome.summary["algorithm"] == "epo"
    assert outcome.summary["success_grpo"] == other["success_rl"]
    assert outcome.report is not None
    assert "GRPO" in outcome.report.read_text()


def test_a_second_run_in_the_same_place_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(recipe), "budget.iterations=1", "evaluation.test_episodes=1", "evaluation.every=0"]
    assert main(command) == 0
    metrics = (recipe.parent / "run" / "metrics.jsonl").read_bytes()
    assert main(command) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (recipe.parent / "run" / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.slow
def test_ctrl_c_keeps_the_run_and_resume_finishes_it(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recipe.parent / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, "train", str(recipe), "budget.iterations=100000", "evaluation.every=0"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            wait_for(run / "checkpoints" / "000002", child)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=120)
        finally:
            child.kill()
    assert child.returncode == 130, said
    assert said.splitlines()[-1].startswith("palaestra: interrupted; ")
    assert "Traceback" not in said
    done = train_rows(run)
    assert main(["train", str(run), f"budget.iterations={done + 2}", "--resume"]) == 0
    assert train_rows(run) == done + 2


def wait_for(path: Path, child: subprocess.Popen[str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def train_rows(run: Path) -> int:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sum(row["kind"] == "train" for row in rows)


def test_an_earlier_run_is_set_aside_not_lost(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    assert set_aside(run) is None
    for number in (1, 2):
        run.mkdir()
        (run / "summary.json").write_text(str(number))
        assert set_aside(run) == tmp_path / f"demo.{number}"
    assert (tmp_path / "demo.2" / "summary.json").read_text() == "2"


def test_peak_memory_sees_children() -> None:
    # 200 MB that nothing shares, in a child that lives for longer than one sample.
    hog = "import time; block = bytearray(200_000_000); print('ready', flush=True); time.sleep(60)"
    watch = f"""
import subprocess, sys
from palaestra.memory import PeakMemory
with PeakMemory(seconds=0.05) as memory:
    before = memory.peak()
    with subprocess.Popen([sys.executable, "-c", {hog!r}], stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        memory.peak()
        child.kill()
    print(memory.peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 190_000_000


def test_peak_memory_misses_nothing_between_two_samples() -> None:
    with PeakMemory(seconds=60) as memory:
        before = memory.peak()
        block = bytearray(before + 100_000_000)
        del block
        assert memory.peak() >= before + 100_000_000
        assert memory.peak() >= peak_rss()
    with PeakMemory(seconds=60, known=2**50) as memory:
        assert memory.peak() == 2**50


def test_costs_add_up_over_sessions(recipe: Path) -> None:
    run = recipe.parent / "run"
    command = ["train", str(recipe), "budget.iterations=1", "evaluation.every=0"]
    assert main(command) == 0
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "wall_seconds": 1000.0, "peak_rss_bytes": 2**50}))
    assert main(["train", str(run), "budget.iterations=2", "--resume"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert 1000 < summary["wall_seconds"] < 1100
    assert summary["peak_rss_bytes"] == 2**50
    (run / "summary.json").unlink()  # killed before it was written: the checkpoint knows
    assert main(["train", str(run), "budget.iterations=3", "--resume"]) == 0
    assert 1000 < json.loads((run / "summary.json").read_text())["wall_seconds"] < 1100


def test_a_cluster_is_named_with_its_launcher(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(recipe), "--ray-address", "auto"]) == 2
    assert "--ray-address is for --launcher ray" in capsys.readouterr().err
