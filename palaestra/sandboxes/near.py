"""The near side of sandboxes that are elsewhere: every call becomes a request, every reply a result or an error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from palaestra.errors import SandboxError
from palaestra.sandboxes.archive import pack, unpacking
from palaestra.sandboxes.commands import Chunk, Exec, ExecResult
from palaestra.sandboxes.core import Backend, OnOutput, Sandbox, Session, Snapshot
from palaestra.sandboxes.requests import (
    Body,
    Close,
    CloseAll,
    Content,
    Delete,
    Done,
    Download,
    End,
    Execute,
    Failed,
    Far,
    Fork,
    Given,
    Keep,
    Kind,
    One,
    Open,
    Ran,
    Read,
    Request,
    Revive,
    Run,
    Sink,
    Start,
    Upload,
    Write,
    rebuilt,
)
from palaestra.sandboxes.spec import SandboxSpec

R = TypeVar("R", bound=Given | Ran | Content | Done)

PIECE = 64 * 1024
"""Most bytes of a body that travel at once."""


class NearBackend(Backend):
    """Starts sandboxes at whoever answers its requests."""

    def __init__(self, name: str, far: Far) -> None:
        """A back end called `name`, which asks `far`."""
        self.name = name
        self._far = far

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox; see `Backend.start`."""
        return _sandboxes(self._far, await _asked(self._far, Given, Start(spec)), spec, 1)[0]

    async def close(self) -> None:
        """Close every sandbox and delete every snapshot."""
        with suppress(SandboxError):  # where they are lost, they are closed without us
            await _asked(self._far, Done, CloseAll())


class NearSandbox(Sandbox):
    """A sandbox elsewhere."""

    def __init__(self, far: Far, one: One, spec: SandboxSpec) -> None:
        self.id, self.spec = one.id, one.spec or spec
        self._far, self._handle = far, one.handle

    async def exec(self, command: Exec, on_output: OnOutput | None = None) -> ExecResult:
        """Run a command to its end; see `Sandbox.exec`."""
        request = Execute(self._handle, replace(command, stdin=b""), len(command.stdin), on_output is not None)
        body = in_pieces(command.stdin) if command.stdin else None
        return (await _asked(self._far, Ran, request, body, _watching(on_output))).result

    async def session(self) -> Session:
        """Begin a shell that stays."""
        given = await _asked(self._far, Given, Open(self._handle))
        return NearSession(self._far, _counted(given, 1)[0].handle)

    async def read_file(self, path: str, limit: int = 16 * 1024 * 1024) -> bytes:
        """The content of a regular file."""
        return (await _asked(self._far, Content, Read(self._handle, path, limit))).data

    async def write_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Put a file there whole or not at all."""
        await _asked(self._far, Done, Write(self._handle, path, mode & 0o7777, len(content)), in_pieces(content))

    async def upload(self, source: Path, target: str) -> None:
        """Copy a file or a folder from this machine."""
        async with pack(source) as body:
            await _asked(self._far, Done, Upload(self._handle, target), body)

    async def download(self, source: str, target: Path, limit: int = 1024 * 1024 * 1024) -> None:
        """Copy a file or a folder to this machine."""
        async with unpacking(target, limit) as take:

            async def sink(kind: Kind, data: bytes) -> None:
                await take(data)

            await _asked(self._far, Done, Download(self._handle, source, limit), None, sink)

    async def snapshot(self) -> Snapshot:
        """Keep its files as they are now."""
        given = await _asked(self._far, Given, Keep(self._handle))
        return NearSnapshot(self._far, _counted(given, 1)[0], self.spec)

    async def fork(self, n: int = 1) -> list[Sandbox]:
        """`n` sandboxes with the files of this one."""
        return _sandboxes(self._far, await _asked(self._far, Given, Fork(self._handle, n)), self.spec, n)

    async def close(self) -> None:
        """End everything in it and remove what it takes."""
        with suppress(SandboxError):  # where it is lost, it is closed without us
            await _asked(self._far, Done, Close(self._handle))


class NearSession(Session):
    """A shell elsewhere."""

    def __init__(self, far: Far, handle: int) -> None:
        self._far, self._handle = far, handle

    async def run(self, script: str, timeout: float | None = None) -> ExecResult:
        """Run a script in it; see `Session.run`."""
        return (await _asked(self._far, Ran, Run(self._handle, script, timeout))).result

    async def close(self) -> None:
        """End the shell and its background jobs."""
        with suppress(SandboxError):
            await _asked(self._far, Done, End(self._handle))


class NearSnapshot(Snapshot):
    """A snapshot elsewhere."""

    def __init__(self, far: Far, one: One, spec: SandboxSpec) -> None:
        self.id, self.spec = one.id, one.spec or spec
        self._far, self._handle = far, one.handle

    async def start(self) -> Sandbox:
        """A new sandbox with these files."""
        return _sandboxes(self._far, await _asked(self._far, Given, Revive(self._handle)), self.spec, 1)[0]

    async def delete(self) -> None:
        """Free what it takes."""
        with suppress(SandboxError):
            await _asked(self._far, Done, Delete(self._handle))


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """`data` as a body."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


async def _asked(far: Far, kind: type[R], request: Request, body: Body | None = None, sink: Sink | None = None) -> R:
    """The reply to a request, if it is of the kind that it should be.

    Raises:
        PalaestraError: what the reply says went wrong.
        SandboxError: it makes no sense.
    """
    reply = await far.ask(request, body, sink)
    if isinstance(reply, Failed):
        raise rebuilt(reply)
    if not isinstance(reply, kind):
        raise _nonsense()
    return reply


def _counted(given: Given, n: int) -> tuple[One, ...]:
    if len(given.ones) != n:
        raise _nonsense()
    return given.ones


def _sandboxes(far: Far, given: Given, spec: SandboxSpec, n: int) -> list[Sandbox]:
    return [NearSandbox(far, one, spec) for one in _counted(given, n)]


def _nonsense() -> SandboxError:
    return SandboxError("what runs the sandboxes answered what nobody asked; is it of this version?")


def _watching(on_output: OnOutput | None) -> Sink | None:
    if on_output is None:
        return None

    def sink(kind: Kind, data: bytes) -> Awaitable[None] | None:
        return on_output(Chunk("stderr" if kind == "stderr" else "stdout", data))

    return sink
