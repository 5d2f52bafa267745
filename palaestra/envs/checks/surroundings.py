"""What all code of a process shares: working directory, environment variables, the folder of temporary files."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The working directory and the environment variables at some time."""

    folder: str
    variables: dict[str, str]

    @classmethod
    def now(cls) -> Self:
        """Those of this process; the folder is empty where it was removed."""
        folder = ""
        with suppress(OSError):
            folder = os.getcwd()
        return cls(folder, dict(os.environ))

    def restore(self) -> None:
        """Make them those of the process again."""
        with suppress(OSError):
            os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.variables)

    def other(self, before: Surroundings) -> list[str]:
        """The names of the variables that differ."""
        names = sorted(set(self.variables) | set(before.variables))
        return [name for name in names if self.variables.get(name) != before.variables.get(name)]


@contextmanager
def temporary_files() -> Iterator[Path]:
    """A folder of its own, in which what is made meanwhile by `tempfile`, or by a program that reads TMPDIR, lies.

    What is left there goes when the process ends: what was made once for all instances may still be in use.
    """
    folder = tempfile.mkdtemp(prefix="palaestra-check-")
    default, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        yield Path(folder)
    finally:
        tempfile.tempdir = default
        os.environ.pop("TMPDIR", None)
        if variable is not None:
            os.environ["TMPDIR"] = variable
        try:
            os.rmdir(folder)
        except OSError:
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
