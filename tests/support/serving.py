"""A real `palaestra serve` in a process of its own."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Served:
    """A server that runs."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """What it has printed so far, errors included."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send it a signal, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def serving(*arguments: str, token: str | None = None) -> Iterator[Served]:
    """`palaestra serve --port 0` with the environments under test, until the block ends."""
    environ = {key: value for key, value in os.environ.items() if key != "PALAESTRA_TOKEN"}
    environ |= {"PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1"} | ({"PALAESTRA_TOKEN": token} if token else {})
    command = [sys.executable, "-m", "palaestra", "serve", "--port", "0", "--import", "support.served_envs", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"  # a file: a pipe that nobody reads would hold up what prints a lot
        with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environ) as process:
            try:
                yield Served(_url(process, log), process, log)
            finally:
                process.kill()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while (found := re.search(r"http://\S+", log.read_text(errors="replace"))) is None:
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]


@cache
def shared_server() -> str:
    """URL of a server that lasts as long as the tests: its environments run in threads, clients choose arguments."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(serving("--placement", "thread", "--allow-arguments")).url
