"""A real `palaestra sandboxes serve` over bubblewrap, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.serving import Served

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@contextmanager
def serving_sandboxes(*arguments: str, token: str | None = None) -> Iterator[Served]:
    """It, until the block ends."""
    environ = {key: value for key, value in os.environ.items() if key != "PALAESTRA_TOKEN"}
    environ |= {"PYTHONUNBUFFERED": "1"} | ({"PALAESTRA_TOKEN": token} if token else {})
    command = [sys.executable, "-m", "palaestra", "sandboxes", "serve", "--backend", "bubblewrap", "--port", "0"]
    command += arguments
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with (
            log.open("wb") as out,
            subprocess.Popen([*command, *arguments], stdout=out, stderr=out, env=environ) as run,
        ):
            try:
                yield Served(_url(run, log), run, log)
            finally:
                run.kill()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    until(lambda: process.poll() is not None or "http://" in log.read_text(errors="replace"), 60)
    found = re.search(r"http://\S+", log.read_text(errors="replace"))
    assert found is not None, log.read_text(errors="replace")
    return found[0]


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096
