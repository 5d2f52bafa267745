"""Sandboxes that run nothing: commands have the replies that a test wrote down, or that were recorded of real ones.

    backend = ScriptedBackend([reply("pytest -q", "1 passed")], files={"solution.py": "..."})

Files are in memory: what is written, uploaded or forked can be read, downloaded and forked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from palaestra.errors import PalaestraError
from palaestra.sandboxes.commands import Ending, Exec, ExecResult, Output
from palaestra.sandboxes.matching import ByContent, InOrder
from palaestra.sandboxes.near import NearBackend
from palaestra.sandboxes.recording import Record, digest, read, recording
from palaestra.sandboxes.requests import Execute, Ran, failure
from palaestra.sandboxes.script import Script

__all__ = ["Record", "ScriptedBackend", "recording", "reply"]

Match = Literal["content", "order"]
"""Which reply a request gets: that of one with the same content; or the next, whose request has to have it."""


def reply(
    command: Exec | str,
    stdout: bytes | str = b"",
    stderr: bytes | str = b"",
    exit_code: int = 0,
    *,
    ending: Ending = "exit",
    seconds: float = 0.0,
    files: Mapping[str, bytes | str] | None = None,
    error: PalaestraError | None = None,
) -> Record:
    """What comes of a command.

    Args:
        command: exactly this one; or a script, whatever folder, variables and limits it has, in a session too.
        stdout: what it prints.
        stderr: what it prints there.
        exit_code: see `ExecResult`.
        ending: see `ExecResult`.
        seconds: what it is said to have taken.
        files: what it leaves in the work folder, by path.
        error: what is raised instead.
    """
    exact = command if isinstance(command, Exec) else Exec(shell=command)
    result = ExecResult(exit_code, ending, Output(_encoded(stdout)), Output(_encoded(stderr)), seconds)
    pieces = [(name, data) for name, data in (("stdout", result.stdout.head), ("stderr", result.stderr.head)) if data]
    return Record(
        Execute(0, replace(exact, stdin=b""), len(exact.stdin)),
        failure(error) if error is not None else Ran(result),
        digest(exact.stdin),
        tuple(pieces),  # type: ignore[arg-type]  # the names are those of streams
        files={path: _encoded(content) for path, content in (files or {}).items()},
        loose=isinstance(command, str),
    )


class ScriptedBackend(NearBackend):
    """Replies from code or from a recording. It runs nothing and needs nothing."""

    def __init__(
        self,
        replies: Sequence[Record] | Path | str = (),
        match: Match = "content",
        files: Mapping[str, bytes | str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            replies: made by `reply`; or the path of what `recording` wrote.
            match: see `Match`. By content the last of several equal requests is replied to as often as it is asked.
            files: what every sandbox has at its start, by path.

        Raises:
            DataError: the recording cannot be read.
        """
        records = read(Path(replies)) if isinstance(replies, Path | str) else replies
        content = {path: _encoded(data) for path, data in (files or {}).items()}
        matcher = InOrder(records) if match == "order" else ByContent(records)
        super().__init__("scripted", Script(matcher, content))


def _encoded(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content
