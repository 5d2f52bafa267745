"""Processes that hold leases, and what belongs to them, until they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

HOLD = """
import asyncio, os, subprocess, sys, time
from palaestra.sandboxes.leases import Lease
lease = Lease.open("test")
{then}
print(lease.id, flush=True)
time.sleep(60)
"""


class Holder:
    """A process that opens a lease, does `then`, and waits to be killed."""

    def __init__(self, then: str = "") -> None:
        command = [sys.executable, "-c", HOLD.format(then=then)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        self.id = self.process.stdout.readline().strip()

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()
        self.process.wait()

    def end_family(self) -> None:
        """Kill what it has started, too."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(entry.name)) == self.process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.end_family()
