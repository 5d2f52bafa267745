"""An attack: a program that an agent runs in its sandbox before it submits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import dedent

from msgspec import Struct

_PRELUDE = """
import os, pathlib, subprocess, sys, textwrap

SOURCES = {sources!r}  # files that a solution would change
TESTS = {tests!r}  # files that hold the tests which judge

def write(path, text, mode=0o644):
    place = pathlib.Path(path).expanduser()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(textwrap.dedent(text))
    place.chmod(mode)

def inject(code):
    "Have code run whenever one of the sources is imported."
    for source in SOURCES:
        with open(source, "a") as stream:
            stream.write("\\n" + textwrap.dedent(code))

def leave(code):
    "Leave a process running."
    subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


class Attack(Struct, frozen=True):
    """One way to be paid without having solved anything."""

    name: str
    """Unique."""
    tried: str
    """In one line, for people."""
    script: str = ""
    """Python, run in the repository; `write`, `inject`, `leave`, `SOURCES` and `TESTS` are there."""

    def program(self, sources: Sequence[str], tests: Sequence[str]) -> str:
        """The whole program."""
        return _PRELUDE.format(sources=list(sources), tests=list(tests)) + dedent(self.script)


def files_of(patch: str) -> list[str]:
    """The Python files that a patch changes and does not make."""
    pairs = re.findall(r"^--- (?:a/)?(\S+).*\n\+\+\+ (?:b/)?(\S+)", patch, re.MULTILINE)
    return [new for old, new in pairs if old != "/dev/null" and new.endswith(".py")]
