"""What wears a leash ends with its group when whoever holds it is gone."""

import os
import signal
import subprocess
import sys

SERVER = """
import subprocess, sys, time
from palaestra.agents.engines.vllm.leash import wear
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.DEVNULL)
wear()
print(worker.pid, flush=True)
time.sleep(60)
"""
HOLDER = f"""
import os, subprocess, sys
theirs, ours = os.pipe()
subprocess.Popen([sys.executable, "-c", {SERVER!r}], stdin=theirs, start_new_session=True)
sys.stdin.read()
"""


def test_kill_9_of_the_holder_ends_the_server_and_its_workers() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    os.kill(worker, 0)
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=30)  # ends once the server has closed its output, as well
    assert not running(worker)


def running(pid: int) -> bool:
    """Whether a process lives; one that is dead but not yet reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
