"""The contract of sandboxes as data: a request for every call, and a reply for every outcome.

The remote back end sends them, recordings keep them, and scripts look them up. What is large or comes bit by bit (the
content of a file, an archive, standard input, output while a command runs) travels beside them. Sandboxes, sessions and
snapshots are named by handles: numbers that whoever answers has given out, valid for whoever asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

from palaestra.errors import (
    ConfigError,
    MissingExtraError,
    PalaestraError,
    SandboxDaemonError,
    SandboxError,
    SandboxImageError,
    SandboxPathError,
)
from palaestra.sandboxes.commands import Exec, ExecResult
from palaestra.sandboxes.spec import SandboxSpec

Count = Annotated[int, Meta(ge=0)]


class Start(Struct, frozen=True, tag=True):
    """`Backend.start`. Reply: `Given`, one sandbox."""

    spec: SandboxSpec


class Execute(Struct, frozen=True, tag=True):
    """`Sandbox.exec`; the body is standard input. Reply: `Ran`."""

    sandbox: int
    command: Exec
    """Without `stdin`."""
    size: Count = 0
    """Bytes of its standard input."""
    watched: bool = False
    """Whether output is to be sent while it runs."""


class Open(Struct, frozen=True, tag=True):
    """`Sandbox.session`. Reply: `Given`, one session."""

    sandbox: int


class Run(Struct, frozen=True, tag=True):
    """`Session.run`. Reply: `Ran`."""

    session: int
    script: str
    timeout: float | None = None


class End(Struct, frozen=True, tag=True):
    """`Session.close`. Reply: `Done`."""

    session: int


class Read(Struct, frozen=True, tag=True):
    """`Sandbox.read_file`. Reply: `Content`."""

    sandbox: int
    path: str
    limit: Count


class Write(Struct, frozen=True, tag=True):
    """`Sandbox.write_file`; the body is the content. Reply: `Done`."""

    sandbox: int
    path: str
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    size: Count
    """Bytes of the content."""


class Upload(Struct, frozen=True, tag=True):
    """`Sandbox.upload`; the body is an archive. Reply: `Done`."""

    sandbox: int
    target: str


class Download(Struct, frozen=True, tag=True):
    """`Sandbox.download`; an archive is sent before the reply. Reply: `Done`."""

    sandbox: int
    source: str
    limit: Count


class Keep(Struct, frozen=True, tag=True):
    """`Sandbox.snapshot`. Reply: `Given`, one snapshot."""

    sandbox: int


class Revive(Struct, frozen=True, tag=True):
    """`Snapshot.start`. Reply: `Given`, one sandbox."""

    snapshot: int


class Delete(Struct, frozen=True, tag=True):
    """`Snapshot.delete`. Reply: `Done`."""

    snapshot: int


class Fork(Struct, frozen=True, tag=True):
    """`Sandbox.fork`. Reply: `Given`, `n` sandboxes."""

    sandbox: int
    n: Count


class Close(Struct, frozen=True, tag=True):
    """`Sandbox.close`. Reply: `Done`."""

    sandbox: int


class CloseAll(Struct, frozen=True, tag=True):
    """`Backend.close`. Reply: `Done`."""


Request = (
    Start
    | Execute
    | Open
    | Run
    | End
    | Read
    | Write
    | Upload
    | Download
    | Keep
    | Revive
    | Delete
    | Fork
    | Close
    | CloseAll
)


class One(Struct, frozen=True):
    """A sandbox, a session or a snapshot."""

    handle: int
    """Names it in requests."""
    id: str = ""
    """As in the contract; sessions have none."""
    spec: SandboxSpec | None = None
    """As in the contract; sessions have none."""


class Given(Struct, frozen=True, tag=True):
    """What was made."""

    ones: tuple[One, ...]


class Ran(Struct, frozen=True, tag=True):
    """A command has ended."""

    result: ExecResult


class Content(Struct, frozen=True, tag=True):
    """A file."""

    data: bytes


class Done(Struct, frozen=True, tag=True):
    """It is done, and there is nothing to say."""


class Failed(Struct, frozen=True, tag=True):
    """It raised."""

    error: str
    """Name of the exception's class."""
    message: str


Reply = Given | Ran | Content | Done | Failed

Kind = Literal["stdout", "stderr", "archive"]
"""Of what is sent before a reply."""
Body = AsyncIterator[bytes]
"""What travels beside a request."""
Sink = Callable[[Kind, bytes], Awaitable[None] | None]
"""Takes what is sent before a reply; what it returns is awaited before more is sent."""


class Far(Protocol):
    """Whoever answers requests."""

    async def ask(self, request: Request, body: Body | None = None, sink: Sink | None = None) -> Reply:
        """The reply. Cancelling this stops what it began, and what it made then is removed."""
        ...


_ERRORS: dict[str, type[PalaestraError]] = {
    kind.__name__: kind for kind in (SandboxError, SandboxPathError, SandboxDaemonError, SandboxImageError, ConfigError)
}


def failure(error: BaseException) -> Failed:
    """An exception as a reply. Of those that are not Palaestra's the message names the class."""
    message = str(error).encode("utf-8", "backslashreplace").decode()  # names of files may be no text
    if isinstance(error, MissingExtraError):
        return Failed("SandboxDaemonError", f"where the sandboxes run, {message}")
    known = [kind.__name__ for kind in type(error).__mro__ if _ERRORS.get(kind.__name__) is kind]
    if known or isinstance(error, PalaestraError):
        return Failed((*known, type(error).__name__)[0], message)
    return Failed(type(error).__name__, f"{type(error).__name__}: {message}")


def rebuilt(failed: Failed) -> PalaestraError:
    """The exception that a reply stands for: of the contract's classes, and of `SandboxError` where it is another."""
    return _ERRORS.get(failed.error, SandboxError)(failed.message)


def is_ours(error: BaseException) -> bool:
    """Whether the running task itself is being ended, rather than what it awaits."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
