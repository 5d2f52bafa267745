"""What wears a leash ends with its group when whoever holds it is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from palaestra.envs.isolation.interpreters import package_folder

SERVER = """
import multiprocessing, sys, time

def work():
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=work)
    worker.start()
    print(*sys.argv[1:], worker.pid, flush=True)
    time.sleep(60)  # the model loads
"""
HOLDER = """
import os, subprocess, sys
theirs, ours = os.pipe()
command = [sys.executable, "-m", "palaestra.agents.engines.vllm.launch", "--model"]
subprocess.Popen(command, stdin=theirs, start_new_session=True)
sys.stdin.read()
"""


def test_kill_9_of_the_holder_ends_a_server_that_still_loads_and_its_workers(tmp_path: Path) -> None:
    folder = tmp_path / "vllm" / "entrypoints" / "openai"
    folder.mkdir(parents=True)
    (folder / "api_server.py").write_text(SERVER)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), package_folder()])}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    assert holder.stdout is not None
    option, told = holder.stdout.readline().split()
    assert option == b"--model"
    worker = int(told)
    assert running(worker)
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=30)  # ends once the server has closed its output, as well
    deadline = time.monotonic() + 10  # a process closes its files a moment before it is dead
    while running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process lives; one that is dead but not yet reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
