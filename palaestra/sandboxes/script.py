"""The far side of scripted sandboxes: replies that are written down, and files in memory."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec.structs import replace

from palaestra.errors import PalaestraError, SandboxError
from palaestra.sandboxes.archive import UPLOAD_BYTES, pack, unpacking
from palaestra.sandboxes.commands import ExecResult, Output
from palaestra.sandboxes.matching import Matcher
from palaestra.sandboxes.near import PIECE
from palaestra.sandboxes.recording import CANCELLED, HANDLES, Record, digest, handle
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
)
from palaestra.sandboxes.tree import File, Tree


class Script:
    """Answers requests; see `Far`."""

    def __init__(self, matcher: Matcher, files: Mapping[str, bytes]) -> None:
        """Replies by `matcher`; every sandbox has `files` at its start."""
        self._matcher, self._files = matcher, files
        self._handles = itertools.count(1)
        self._recorded: dict[int, int] = {}
        """By our handles: that of the recording, 0 for none."""
        self._trees: dict[int, Tree] = {}
        """Of sandboxes and snapshots."""
        self._sessions: dict[int, int] = {}
        """Their sandboxes."""

    async def ask(self, request: Request, body: Body | None = None, sink: Sink | None = None) -> Reply:
        """The reply that is written down, or else what the files in memory say."""
        data = b"".join([piece async for piece in body]) if body is not None else b""
        try:
            self._check(request)
            recorded = self._recorded.get(handle(request), 0)
            record = self._matcher.find(request, digest(data), recorded)
            if record is None:
                return await self._improvise(request, data, sink)
            return await self._replay(request, record, data, sink)
        except (PalaestraError, OSError) as error:
            return failure(error)

    def _check(self, request: Request) -> None:
        """Refuse what is asked of something that is closed."""
        name = next((name for name in HANDLES if hasattr(request, name)), "")
        known = self._sessions if name == "session" else self._trees
        if name and not isinstance(request, Close | End | Delete) and handle(request) not in known:
            raise SandboxError(f"the {name} is closed")

    async def _replay(self, request: Request, record: Record, data: bytes, sink: Sink | None) -> Reply:
        if record.cut:
            raise SandboxError(f"what came of {record.key} was too long to be recorded")
        if not isinstance(request, Execute) or request.watched:
            await _send(sink, record.pieces)
        if record.reply == CANCELLED:
            await asyncio.Event().wait()
        if isinstance(record.reply, Failed):
            return record.reply
        if isinstance(request, Write | Upload):
            return await self._improvise(request, data, sink)
        tree = self._tree(request)
        for path, content in record.files.items():
            assert tree is not None
            tree.write(path, File(content))
        return self._given(request, record.reply) if isinstance(record.reply, Given) else record.reply

    def _given(self, request: Request, given: Given) -> Given:
        """Handles of our own for what a recording gave, with the files that they have to have."""
        return Given(tuple(replace(one, handle=self._new(request, one.handle)) for one in given.ones))

    def _new(self, request: Request, recorded: int = 0) -> int:
        mine = next(self._handles)
        self._recorded[mine] = recorded
        if isinstance(request, Open):
            self._sessions[mine] = request.sandbox
            return mine
        tree = self._tree(request)
        if isinstance(request, Start):
            tree = Tree(request.spec)
            for path, content in self._files.items():
                tree.write(path, File(content))
        assert tree is not None
        self._trees[mine] = tree.copy()
        return mine

    def _tree(self, request: Request) -> Tree | None:
        """Of what a request is about."""
        asked = handle(request)
        return self._trees.get(self._sessions.get(asked, 0) if isinstance(request, Run | End) else asked)

    async def _improvise(self, request: Request, data: bytes, sink: Sink | None) -> Reply:
        """What the files in memory say, where nothing is written down."""
        tree = self._tree(request)
        match request:
            case Start() | Open() | Keep() | Revive() | Fork():
                n = request.n if isinstance(request, Fork) else 1
                return Given(tuple(self._one(request, tree) for _ in range(n)))
            case Execute():
                return Ran(ExecResult(0, "exit", Output(), Output(), 0.0))
            case Read(_, path, limit) if tree is not None:
                return Content(tree.read(path, limit))
            case Write(_, path, mode) if tree is not None:
                tree.write(path, File(data, mode))
            case Upload(_, target) if tree is not None:
                await _take_in(tree, target, data)
            case Download(_, source, limit) if tree is not None:
                await _put_out(tree, source, limit, sink)
            case Close() | Delete() | End() | CloseAll():
                self._forget(request)
        return Done()

    def _one(self, request: Request, tree: Tree | None) -> One:
        mine = self._new(request)
        if isinstance(request, Open):
            return One(mine)
        spec = request.spec if isinstance(request, Start) or tree is None else tree.spec  # type: ignore[union-attr]
        return One(mine, f"scripted-{mine}", spec)

    def _forget(self, request: Request) -> None:
        if isinstance(request, CloseAll):
            self._trees.clear()
            self._sessions.clear()
        asked = handle(request)
        (self._sessions if isinstance(request, End) else self._trees).pop(asked, None)
        if isinstance(request, Close):
            self._sessions = {mine: of for mine, of in self._sessions.items() if of != asked}


async def _send(sink: Sink | None, pieces: Iterable[tuple[str, bytes]]) -> None:
    for kind, data in pieces:
        for start in range(0, len(data), PIECE):
            wait = sink(kind, data[start : start + PIECE]) if sink is not None else None  # type: ignore[arg-type]
            if wait is not None:
                await wait


async def _take_in(tree: Tree, target: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "it"
        async with unpacking(place, UPLOAD_BYTES, all_links=True) as take:
            await take(data)
        tree.take_in(place, target)


async def _put_out(tree: Tree, source: str, limit: int, sink: Sink | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree.put_out(source, Path(folder) / "it")
        async with pack(Path(folder) / "it") as pieces:
            async for piece in pieces:
                await _send(sink, [("archive", piece)])
