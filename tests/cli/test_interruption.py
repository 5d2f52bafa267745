"""Ctrl-C and SIGTERM at any moment: one line, the right exit code, nothing lost, nothing left running."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from support.command import at, complaint, send, write_recipe

import palaestra.trajectories.report
from palaestra.agents.scripted import RandomAgent
from palaestra.cli.main import main
from palaestra.cli.training import run_with_bar
from palaestra.config import load_recipe
from palaestra.training import checkpoint, run
from palaestra.training.learner import Learner
from palaestra.training.player import InProcessPlayer
from palaestra.trajectories.store import read_trajectories

Capture = pytest.CaptureFixture[str]

MOMENTS: dict[str, tuple[Any, str, int]] = {
    "loading": (run, "load_model", 1),
    "opening": (run, "open_directory", 1),
    "warm evaluation": (InProcessPlayer, "evaluate", 1),
    "rollout": (InProcessPlayer, "play", 2),
    "update": (Learner, "update", 2),
    "checkpoint": (checkpoint, "_write_files", 2),
    "validation": (InProcessPlayer, "evaluate", 3),
    "model": (run, "save_model", 1),
    "final evaluation": (RandomAgent, "session", 2),
    "summary": (run, "_write_summary", 1),
    "report": (palaestra.trajectories.report, "write_report", 1),
}
"""What is about to be called, and the how manieth time."""


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


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_during_training(
    moment: str, recipe: Path, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    owner, name, call = MOMENTS[moment]
    before = set(psutil.Process().children())  # a fork server of earlier tests may be there
    with monkeypatch.context() as patch:
        at(patch, owner, name, send(signal.SIGINT), call)
        assert "interrupted" in complaint(capsys, "train", str(recipe), code=130)
    assert set(psutil.Process().children()) <= before
    assert main(["train", str(recipe), "--resume"]) == 0
    assert weights(recipe.parent) == undisturbed
    assert (recipe.parent / "run" / "report.html").is_file()


@pytest.mark.parametrize("moment", ["loading", "update", "report"])
def test_sigterm_is_ctrl_c_with_another_code(
    moment: str, recipe: Path, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    owner, name, call = MOMENTS[moment]
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at(patch, owner, name, send(signal.SIGTERM), call)
        assert "interrupted" in complaint(capsys, "train", str(recipe), code=143)
    assert signal.getsignal(signal.SIGTERM) == before
    assert main(["train", str(recipe), "--resume"]) == 0
    assert weights(recipe.parent) == undisturbed


def test_sigterm_works_where_ctrl_c_is_ignored(
    recipe: Path, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patch:
            at(patch, Learner, "update", send(signal.SIGTERM), 2)
            complaint(capsys, "train", str(recipe), code=143)
    finally:
        signal.signal(signal.SIGINT, before)
    assert main(["train", str(recipe), "--resume"]) == 0
    assert weights(recipe.parent) == undisturbed


def test_a_second_ctrl_c_ends_at_once(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at(patch, checkpoint, "_write_files", twice, 2)
        complaint(capsys, "train", str(recipe), code=130)
    assert [path.name for path in checkpoint.list_checkpoints(recipe.parent / "run" / "checkpoints")] == ["000001"]
    assert main(["train", str(recipe), "--resume"]) == 0
    assert not list((recipe.parent / "run").rglob("*.partial"))


def test_the_line_says_how_to_go_on(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    at(monkeypatch, Learner, "update", send(signal.SIGINT), 2)
    directory = recipe.parent / "run"
    wanted = f"palaestra: interrupted; 2 iterations are saved, go on with: palaestra train {directory} --resume"
    assert complaint(capsys, "train", str(recipe), code=130) == wanted


def test_one_iteration_is_one(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    at(monkeypatch, Learner, "update", send(signal.SIGINT), 1)
    assert "; 1 iteration is saved, " in complaint(capsys, "train", str(recipe), code=130)


@pytest.mark.parametrize("more", [[], ["--seed", "2", "--quick", "--no-baseline"]])
def test_the_demo_says_how_the_demo_goes_on(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_recipe(tmp_path)
    tasks = [f"tasks.{part}=levers:{part}" for part in ("train", "validation", "test")]
    small = ["evaluation.every=0", "evaluation.test_episodes=0", "rollout.groups=1", "rollout.group_size=2"]
    given = [*tasks, *small, f"model={{reference: {tmp_path / 'base'}, threads: 1}}", "agent.action=choice"]
    given += ["budget.iterations=2"]
    command = ["palaestra", "demo", *given, "--out", str(tmp_path / "a folder"), *more]
    with monkeypatch.context() as patch:
        at(patch, InProcessPlayer, "play", send(signal.SIGINT), 2)
        said = complaint(capsys, *command[1:], code=130)
    assert said.endswith(f"1 iteration is saved, go on with: {shlex.join([*command, '--resume'])}")
    assert main(shlex.split(said.partition("go on with: palaestra ")[2])) == 0


def test_an_earlier_demo_is_set_aside_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where `out=` rather than `--out` names it."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/demo", "x"):
        Path(name).mkdir(parents=True)
        (Path(name) / "kept").touch()
    at(monkeypatch, run, "train", send(signal.SIGINT))
    main(["demo", "out=x"])
    assert Path("runs/demo/kept").exists()
    assert Path("x.1/kept").exists()


def test_final_evaluations_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    recipe, directory = write_recipe(tmp_path, "rollout.concurrency=1"), tmp_path / "run"
    with monkeypatch.context() as patch:
        at(patch, RandomAgent, "session", send(signal.SIGINT), 4)
        complaint(capsys, "train", str(recipe), code=130)
    stores = {tag: directory / "trajectories" / f"eval-{tag}.ptj" for tag in ("warm", "rl", "random")}
    before = {tag: store.read_bytes() for tag, store in stores.items()}
    assert len(list(read_trajectories(stores["random"]))) == 3
    assert main(["train", str(recipe), "--resume"]) == 0
    after = {tag: store.read_bytes() for tag, store in stores.items()}
    assert (after["warm"], after["rl"]) == (before["warm"], before["rl"])
    assert after["random"].startswith(before["random"])
    assert len(list(read_trajectories(stores["random"]))) == 5
    assert main(["train", str(recipe), "budget.iterations=4", "--resume"]) == 0
    assert stores["rl"].read_bytes() != before["rl"], "of other weights"
    assert len(list(read_trajectories(stores["rl"]))) == 5


def test_whoever_stops_the_baseline_has_the_report_of_the_run(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    own, directory = load_recipe(recipe), recipe.parent / "run"
    algorithm = msgspec.structs.replace(own.algorithm, name="grpo")
    baseline = msgspec.structs.replace(own, algorithm=algorithm, out=str(directory / "baseline"))
    with monkeypatch.context() as patch:
        at(patch, Learner, "update", send(signal.SIGINT), 4)
        with pytest.raises(KeyboardInterrupt, match="the same command"):
            run_with_bar(own, baseline=baseline, resume=False, command="the same command")
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["success_rl"] is not None
    assert "success_grpo" not in summary
    assert "GRPO" not in (directory / "report.html").read_text()
    assert run_with_bar(own, baseline=baseline, resume=True) == 0
    assert json.loads((directory / "summary.json").read_text())["success_grpo"] is not None
    assert "GRPO" in (directory / "report.html").read_text()


def test_ctrl_c_during_an_evaluation_keeps_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    command = ["eval", "alfworld:test", "--agent", "random", "--episodes", "8", "--concurrency", "1"]
    with monkeypatch.context() as patch:
        at(patch, RandomAgent, "session", send(signal.SIGINT), 4)
        said = complaint(capsys, *command, "--out", str(tmp_path), code=130)
    assert said == f"palaestra: interrupted; finished episodes are in {tmp_path}, go on with --resume"
    (store,) = (tmp_path / "trajectories").iterdir()
    kept = store.read_bytes()
    assert main([*command, "--out", str(tmp_path), "--resume"]) == 0
    assert store.read_bytes().startswith(kept)


def test_ctrl_c_before_the_first_episode_speaks_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    at(monkeypatch, RandomAgent, "session", send(signal.SIGINT), 1)
    command = ["eval", "alfworld:test", "--agent", "random", "--episodes", "8", "--concurrency", "1"]
    assert complaint(capsys, *command, "--out", str(tmp_path), code=130) == "palaestra: interrupted"


def test_ctrl_c_during_a_report_keeps_the_one_before(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["train", str(recipe)]) == 0
    page = recipe.parent / "run" / "report.html"
    before = page.read_bytes()
    at(monkeypatch, os, "replace", send(signal.SIGINT))
    assert complaint(capsys, "report", str(recipe.parent / "run"), code=130) == "palaestra: interrupted"
    assert page.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_ends_in_the_middle_of_its_imports(number: int) -> None:
    """The real thing, from outside; what precedes the first line of Palaestra is Python's own."""
    script = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from palaestra.__main__ import main
print("ready", flush=True)
sys.argv = ["palaestra", "eval", "alfworld:test", "--agent", "palaestra-tiny", "--episodes", "100000"]
sys.exit(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.4)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert said == "palaestra: interrupted\n"
