"""How an interpreter for code of an agent's is confined: the command that starts it, its limits, its environment.

Nothing of this machine can be seen there but the interpreter and its packages, and nothing can be written but a folder
in memory that goes with it. That is bubblewrap's work; without it there are only limits.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palaestra.envs.math.interpreter import SOURCE
from palaestra.errors import EnvError

Kind = Literal["bubblewrap", "none"]
KINDS: tuple[Kind, ...] = ("bubblewrap", "none")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of some code may use."""

    seconds: float = 20.0
    """By the clock."""
    cpu_seconds: int = 5
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Of one file; all together, in bubblewrap, four times that."""
    output: int = 4000
    """Characters of what it prints that are shown; of more, the first and the last."""
    code: int = 100_000
    """Characters."""


def check_sandbox(sandbox: str) -> Kind:
    """`sandbox`, if there is such a one here.

    Raises:
        EnvError: there is not; the message says how to get one.
    """
    if sandbox == "none":
        return "none"
    if sandbox != "bubblewrap":
        raise EnvError(f"sandbox is {' or '.join(KINDS)}, not {sandbox!r}")
    if shutil.which("bwrap") is None:
        raise EnvError(
            "the code of agents runs in bubblewrap, which is not installed (on Debian: apt-get install bubblewrap); "
            "sandbox='none', or PALAESTRA_SANDBOX=none, runs it with limits only: it can then do all that you can"
        )
    return "bubblewrap"


def interpreter(limits: Limits) -> list[str]:
    """The command that runs what it reads."""
    # Not -I, which would ignore PYTHONHASHSEED too; -s, -P and an environment of our own isolate as well.
    most = {
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    return [sys.executable, "-s", "-P", "-B", "-c", SOURCE, *(f"{name}={value}" for name, value in most.items())]


def bubblewrap(limits: Limits, *filters: int) -> list[str]:
    """What to put before a command; `filters` are open files with programs for seccomp."""
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    # First what covers, then what is to be seen, which may lie within.
    command += ["--dev", "/dev", "--size", str(4 * limits.file_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for folder in ("/usr", "/bin", "/lib", "/lib64", "/sbin"):
        path = Path(folder)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), folder]
        elif path.is_dir():
            command += ["--ro-bind", folder, folder]
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        if not prefix.startswith("/usr/"):
            command += ["--ro-bind", prefix, prefix]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    for number in filters:
        command += ["--seccomp", str(number)]
    return [*command, "--"]


def environ(folder: str | None) -> dict[str, str]:
    """Its environment variables, and nothing of ours; `folder` is where it may write, in bubblewrap `/tmp`."""
    return {
        "PATH": "/usr/bin:/bin" if folder is None else os.defpath,
        "HOME": folder or "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
