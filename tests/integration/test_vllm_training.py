"""Training with vLLM from the command line: a run that Ctrl-C ends leaves no process, and goes on where it was."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.vllm_models import vllm_python

from palaestra.envs.isolation.named import environ_of
from palaestra.training.checkpoint import load_latest
from palaestra.training.metrics import read_metrics

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = [
    *("model.threads=1", "engine.context=512", "engine.cache_gib=0.1", "engine.slots=8", "budget.max_seconds=3000"),
    *("tasks.max_turns=2", "rollout.groups=2", "rollout.group_size=3", "budget.iterations=3"),
    *("evaluation.every=0", "evaluation.test_episodes=0", "checkpoint.every=1", "optimiser.lr=0.02"),
]


class Run:
    """`palaestra train` in a process group of its own, as a terminal would have it."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        own = "engine.kind=vllm" in overrides
        self._command = [vllm_python() if own else sys.executable, "-m", "palaestra", "train", "demo"]
        self._command += [*SMALL, f"out={folder}", f"engine.python={vllm_python()}", *overrides]
        self._environ = {**os.environ, **(environ_of("vllm") if own else {})}

    def start(self, *more: str) -> psutil.Popen:
        with self.log.open("ab") as log:
            return psutil.Popen(
                [*self._command, *more], stdout=log, stderr=log, env=self._environ, start_new_session=True
            )

    @property
    def rows(self) -> list[dict[str, Any]]:
        metrics = self.folder / "metrics.jsonl"
        return list(read_metrics(metrics)) if metrics.exists() else []

    def interrupted(self) -> list[psutil.Process]:
        """Press Ctrl-C after the first iteration; what it had started that is there still."""
        process = self.start()
        try:
            while not self.rows:
                assert process.poll() is None, self.log.read_text()[-4000:]
                time.sleep(0.1)
            started = process.children(recursive=True)
            assert started
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(120) == 130, self.log.read_text()[-4000:]
        finally:
            end(process)
        return psutil.wait_procs(started, timeout=10)[1]

    def resume(self) -> None:
        process = self.start("--resume")
        try:
            assert process.wait(600) == 0, self.log.read_text()[-4000:]
        finally:
            end(process)


def end(process: psutil.Popen) -> None:
    """Where a test failed."""
    if process.poll() is None:
        for each in [*process.children(recursive=True), process]:
            each.kill()
        process.wait()


def test_a_run_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    """With adapters and a server."""
    pytest.importorskip("peft", reason="peft is not installed: pip install 'palaestra[lora]'")
    run = Run(tmp_path / "run", "engine.kind=vllm-server", "trainer.mode=sync", "model.lora.rank=4")
    assert run.interrupted() == []
    assert len(run.rows) < 3
    before = load_latest(run.folder / "checkpoints")
    run.resume()
    assert [row["iteration"] for row in run.rows] == [0, 1, 2]
    assert all(row["statuses"] == {"ok": 6} for row in run.rows)
    after = load_latest(run.folder / "checkpoints")
    assert before is not None
    assert after is not None
    moved = [float((after.model[name] - tensor).abs().max()) for name, tensor in before.model.items()]
    assert max(moved) > 1e-3
    # The engine sampled by what the learner has, in each iteration.
    assert max(abs(row["rollout_kl"]) for row in run.rows) <= 1e-5


def test_a_run_with_vllm_in_its_process_is_interrupted(tmp_path: Path) -> None:
    """All weights, asynchronously; how a run goes on does not depend on who samples."""
    run = Run(tmp_path / "run", "engine.kind=vllm", "trainer.mode=async")
    assert run.interrupted() == []
    assert run.rows
    assert all(row["statuses"] == {"ok": 6} for row in run.rows)
    assert load_latest(run.folder / "checkpoints") is not None


def test_a_run_whose_engine_has_other_weights_is_stopped(tmp_path: Path) -> None:
    """Rounding is more than this run allows."""
    run = Run(tmp_path / "run", "engine.kind=vllm-server", "engine.parity=1e-12")
    process = run.start()
    try:
        assert process.wait(600) == 2
    finally:
        end(process)
    said = run.log.read_text()
    assert "engine and learner disagree on the same tokens under weights 0" in said
    assert "Traceback" not in said
