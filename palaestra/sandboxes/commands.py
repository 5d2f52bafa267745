"""Commands in a sandbox, and what came of them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Stream = Literal["stdout", "stderr"]
Ending = Literal["exit", "signal", "timeout", "flood", "memory"]


class Exec(Struct, frozen=True, forbid_unknown_fields=True):
    """A command. One of `argv` and `shell`."""

    argv: tuple[str, ...] = ()
    """The program, found on PATH, and its arguments."""
    shell: str = ""
    """A script for `sh -c` (bash where the sandbox has one)."""
    cwd: str = ""
    """Folder, relative to the work folder, which it is when this is empty."""
    env: dict[str, str] = {}
    """Variables beside those of the sandbox."""
    stdin: bytes = b""
    """All that it can read."""
    timeout: float | None = None
    """Seconds; `None`: the sandbox's limit. Then it is killed with all that it began."""
    output: int | None = None
    """Bytes kept of each stream; `None`: the sandbox's limit."""


class Output(Struct, frozen=True):
    """One stream of a command: all of it, or its head and its tail."""

    head: bytes = b""
    """The first bytes."""
    tail: bytes = b""
    """The last bytes, where some between were not kept."""
    dropped: int = 0
    """Bytes between them."""

    @property
    def text(self) -> str:
        """For people and models: undecodable bytes replaced, and a line that says how much is left out."""
        if not self.dropped:
            return (self.head + self.tail).decode("utf-8", "replace")
        head, tail = self.head.decode("utf-8", "replace"), self.tail.decode("utf-8", "replace")
        return f"{head}\n[... {self.dropped} bytes left out ...]\n{tail}"


class Chunk(Struct, frozen=True):
    """Output while a command runs."""

    stream: Stream
    """Where it was written."""
    data: bytes
    """At most 64 KiB, as they came."""


class ExecResult(Struct, frozen=True):
    """What came of a command."""

    exit_code: int
    """Of the program; 128 + the signal's number where a signal ended it; 124 after a time-out."""
    ending: Ending
    """What ended it: itself, a signal, or one of the limits."""
    stdout: Output
    """See `Output`."""
    stderr: Output
    """See `Output`."""
    seconds: float
    """From its start to its end, inside the sandbox."""

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.ending == "exit" and self.exit_code == 0
