"""What tests ask about processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from palaestra.envs.isolation import proc

T = TypeVar("T")


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and is not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descendants() -> set[int]:
    """Of this process, zombies included."""
    return set(proc.descendants(os.getpid(), proc.children()))


def open_files() -> set[int]:
    """Of this process."""
    return proc.open_files()


def command(pid: int) -> str:
    """Its command line; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def eventually(ask: Callable[[], T], fits: Callable[[T], object], seconds: float = 10.0) -> T:
    """What `ask` says as soon as it fits, or at the end of so many seconds."""
    end = time.monotonic() + seconds
    while not fits(found := ask()) and time.monotonic() < end:
        time.sleep(0.02)
    return found
