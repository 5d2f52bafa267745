"""Real runs that die: learner, engine, environments, disk, and the process itself."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.fault_run import FAULTY, WEATHER, Faults, amiss, chores_recipe, disturbed, prepare
from palaestra.training.metrics import read_metrics

SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from support.levers import ENV, levers_recipe, register_levers
from pathlib import Path
from palaestra.envs.registry import register
from palaestra.training.run import train
if __name__ == "__main__":
    register_levers()
    register(ENV, "support.deadly_levers:DeadlyLevers", placement="process", override=True)
    train(levers_recipe(Path({folder!r}), *{overrides!r}), resume={resume!r})
"""
RUN = [
    *("trainer.mode=async", "trainer.staleness=2", "budget.iterations=6", "checkpoint.every=2"),
    *("evaluation.every=0", "evaluation.test_episodes=0", "rollout.groups=2", "rollout.group_size=2"),
    *("rollout.retries=4", "rollout.step_seconds=3"),
]


@pytest.mark.slow
def test_in_process(tmp_path: Path) -> None:
    """As the benchmark, but shorter."""
    prepare(tmp_path)
    recipe = chores_recipe(tmp_path, "run", *FAULTY, "budget.iterations=6")
    faults = Faults(7)
    WEATHER.draw.seed(7)
    WEATHER.crashes, WEATHER.hangs = 0.02, 0.002
    try:
        disturbed(recipe, faults)
    finally:
        WEATHER.crashes = WEATHER.hangs = 0.0
    assert faults.kills
    assert amiss(recipe) == (0, 0)


@pytest.mark.slow
def test_processes(tmp_path: Path) -> None:
    """Environments in worker processes that kill themselves or hang, and `kill -9` of the trainer."""
    from support.levers import levers_recipe, save_tiny_model

    save_tiny_model(tmp_path / "base")
    draw, metrics = random.Random(0), tmp_path / "run" / "metrics.jsonl"
    for rows in (1, 4, None):
        process = launch(tmp_path, resume=rows != 1)
        if rows is None:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors.decode()
            break
        while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < rows):
            time.sleep(0.01)
        time.sleep(0.2 * draw.random())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert amiss(levers_recipe(tmp_path, *RUN)) == (0, 0)
    deaths = (tmp_path / "deaths").read_text().splitlines()
    assert {"died", "hung"} <= set(deaths)
    assert max(row["staleness_max"] for row in read_metrics(metrics)) <= 2


def launch(folder: Path, *, resume: bool) -> "subprocess.Popen[bytes]":
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    script = folder / "run.py"
    script.write_text(SCRIPT.format(paths=paths, folder=str(folder), overrides=RUN, resume=resume))
    environ = {**os.environ, "LEVERS_DEATHS": str(folder / "deaths")}
    return subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, env=environ)
