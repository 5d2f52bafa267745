"""The far side: does on a back end what requests say, and keeps what they name by handles."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from palaestra.errors import SandboxError
from palaestra.sandboxes.archive import UPLOAD_BYTES, in_thread, pack, unpacking
from palaestra.sandboxes.commands import Chunk
from palaestra.sandboxes.core import Backend, OnOutput, Sandbox, Session, Snapshot
from palaestra.sandboxes.removal import remove_tree
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
    Fork,
    Given,
    Keep,
    One,
    Open,
    Ran,
    Read,
    Reply,
    Request,
    Revive,
    Run,
    Sink,
    Start,
    Upload,
    Write,
    failure,
    is_ours,
)


class Rules:
    """What may be asked; this base allows everything. What an asker takes, the desk gives back."""

    def bounded(self, request: Request) -> Request:
        """The request, with less in it where more is asked for than may be had.

        Raises:
            PalaestraError: it is too much in itself.
        """
        return request

    def take(self, sandboxes: int = 0, snapshots: int = 0) -> None:
        """Take places for what is about to be made; negative numbers give them back.

        Raises:
            PalaestraError: there are not so many.
        """


class Desk:
    """Answers the requests of one asker. What was given out and is not closed is closed by `close`."""

    def __init__(self, backend: Backend, spool: Path | None = None, rules: Rules | None = None) -> None:
        """Have requests done by `backend`.

        Args:
            backend: what starts sandboxes; the desk does not close it.
            spool: folder for files on their way; the system's for temporary files if `None`.
            rules: what may be asked; everything if `None`.
        """
        self._backend, self._spool, self._rules = backend, spool, rules or Rules()
        self._handles = itertools.count(1)
        self._sandboxes: dict[int, Sandbox] = {}
        self._snapshots: dict[int, Snapshot] = {}
        self._sessions: dict[int, tuple[int, Session]] = {}
        """By handle: the handle of its sandbox, and the session."""

    async def ask(self, request: Request, body: Body | None = None, sink: Sink | None = None) -> Reply:
        """Do it. What goes wrong is a reply; only the end of the running task itself is raised."""
        try:
            return await self._do(self._rules.bounded(request), body, sink)
        except (Exception, asyncio.CancelledError) as error:
            if is_ours(error):
                raise
            return failure(error)

    async def close(self) -> None:
        """Close every sandbox and delete every snapshot that was given out."""
        everything = [self._close(handle) for handle in self._sandboxes]
        everything += [self._delete(handle) for handle in self._snapshots]
        await asyncio.gather(*everything, return_exceptions=True)

    async def _do(self, request: Request, body: Body | None, sink: Sink | None) -> Reply:
        match request:
            case Start(spec):
                return await self._made(1, lambda: _alone(self._backend.start(spec)))
            case Revive(snapshot):
                return await self._made(1, lambda: _alone(self._snapshot(snapshot).start()))
            case Fork(sandbox, n):
                return await self._made(n, lambda: self._sandbox(sandbox).fork(n))
            case Execute() | Run():
                return await self._run(request, body, sink)
            case Open(sandbox):
                return await self._open(sandbox)
            case Keep(sandbox):
                return await self._keep(sandbox)
            case Read() | Write() | Upload() | Download():
                return await self._move(request, body, sink)
            case _:
                await self._end(request)
                return Done()

    async def _run(self, request: Execute | Run, body: Body | None, sink: Sink | None) -> Ran:
        if isinstance(request, Run):
            return Ran(await self._session(request.session).run(request.script, request.timeout))
        sandbox = self._sandbox(request.sandbox)
        command = replace(request.command, stdin=await _whole(body, request.size))
        return Ran(await sandbox.exec(command, _watching(sink) if request.watched else None))

    async def _move(
        self, request: Read | Write | Upload | Download, body: Body | None, sink: Sink | None
    ) -> Content | Done:
        sandbox = self._sandbox(request.sandbox)
        match request:
            case Read(_, path, limit):
                return Content(await sandbox.read_file(path, limit))
            case Write(_, path, mode, size):
                await sandbox.write_file(path, await _whole(body, size), mode)
            case Upload(_, target):
                await self._upload(sandbox, body, target)
            case Download(_, source, limit):
                await self._download(sandbox, source, limit, sink)
        return Done()

    async def _upload(self, sandbox: Sandbox, body: Body | None, target: str) -> None:
        async with self._folder() as folder:
            async with unpacking(folder / "it", UPLOAD_BYTES, all_links=True) as take:
                async for piece in body or _nothing():
                    await take(piece)
            await sandbox.upload(folder / "it", target)

    async def _download(self, sandbox: Sandbox, source: str, limit: int, sink: Sink | None) -> None:
        async with self._folder() as folder:
            await sandbox.download(source, folder / "it", limit)
            async with pack(folder / "it") as pieces:
                async for piece in pieces:
                    if sink is not None and (wait := sink("archive", piece)) is not None:
                        await wait

    async def _open(self, sandbox: int) -> Given:
        session = await self._sandbox(sandbox).session()
        handle = next(self._handles)
        self._sessions[handle] = sandbox, session
        return Given((One(handle),))

    async def _keep(self, sandbox: int) -> Given:
        self._rules.take(snapshots=1)
        try:
            snapshot = await self._sandbox(sandbox).snapshot()
        except BaseException:
            self._rules.take(snapshots=-1)
            raise
        handle = next(self._handles)
        self._snapshots[handle] = snapshot
        return Given((One(handle, snapshot.id, snapshot.spec),))

    async def _end(self, request: Request) -> None:
        match request:
            case Close(sandbox):
                await self._close(sandbox)
            case Delete(snapshot):
                await self._delete(snapshot)
            case End(session):
                if session in self._sessions:
                    await self._sessions.pop(session)[1].close()
            case CloseAll():
                await self.close()

    async def _close(self, handle: int) -> None:
        if (sandbox := self._sandboxes.pop(handle, None)) is None:
            return
        for session in [one for one, (of, _) in self._sessions.items() if of == handle]:
            del self._sessions[session]
        await self._finish(sandbox.close(), sandboxes=-1)

    async def _delete(self, handle: int) -> None:
        if (snapshot := self._snapshots.pop(handle, None)) is not None:
            await self._finish(snapshot.delete(), snapshots=-1)

    async def _finish(self, work: Awaitable[None], sandboxes: int = 0, snapshots: int = 0) -> None:
        """End something, to its end even if nobody waits for it any more, and give its place back."""

        async def finish() -> None:
            try:
                await work
            finally:
                self._rules.take(sandboxes, snapshots)

        await asyncio.shield(asyncio.ensure_future(finish()))

    async def _made(self, n: int, make: Callable[[], Awaitable[Sequence[Sandbox]]]) -> Given:
        """What is made, in `n` places."""
        self._rules.take(sandboxes=n)
        try:
            made = await make()
        except BaseException:
            self._rules.take(sandboxes=-n)
            raise
        handles = [next(self._handles) for _ in made]
        self._sandboxes.update(zip(handles, made, strict=True))
        return Given(tuple(One(handle, one.id, one.spec) for handle, one in zip(handles, made, strict=True)))

    def _sandbox(self, handle: int) -> Sandbox:
        if (sandbox := self._sandboxes.get(handle)) is None:
            raise SandboxError("the sandbox is closed")
        return sandbox

    def _snapshot(self, handle: int) -> Snapshot:
        if (snapshot := self._snapshots.get(handle)) is None:
            raise SandboxError("the snapshot was deleted")
        return snapshot

    def _session(self, handle: int) -> Session:
        if handle not in self._sessions:
            raise SandboxError("the session is closed")
        return self._sessions[handle][1]

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        """An empty folder for files on their way."""
        folder = Path(await in_thread(tempfile.mkdtemp, dir=self._spool, prefix="palaestra-"))
        try:
            yield folder
        finally:
            await in_thread(remove_tree, folder)


async def _alone(work: Awaitable[Sandbox]) -> list[Sandbox]:
    return [await work]


async def _whole(body: Body | None, size: int) -> bytes:
    """All of a body.

    Raises:
        SandboxError: it is not as long as was said.
    """
    whole = bytearray()
    async for piece in body or _nothing():
        whole += piece
        if len(whole) > size:
            break
    if len(whole) != size:
        raise SandboxError(f"{size} bytes were announced, and others came")
    return bytes(whole)


async def _nothing() -> Body:
    return
    yield b""


def _watching(sink: Sink | None) -> OnOutput | None:
    if sink is None:
        return None

    def on_output(chunk: Chunk) -> Awaitable[None] | None:
        return sink(chunk.stream, chunk.data)

    return on_output
