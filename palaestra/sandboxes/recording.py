"""Recordings: what was asked of real sandboxes and what they replied, a line of JSON each, for `scripted` to replay."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from palaestra.errors import DataError
from palaestra.files import GrowingFile
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Backend
from palaestra.sandboxes.desk import Desk
from palaestra.sandboxes.near import NearBackend
from palaestra.sandboxes.requests import Body, Execute, Failed, Kind, Reply, Request, Run, Sink, Upload

VERSION = 1
MOST_BYTES = 16 * 1024 * 1024
"""Bytes that are kept of what came before one reply: output, or an archive."""
CANCELLED = Failed("CancelledError", "whoever asked did not wait for it")
"""Reply to a request that was cancelled. Who asks the same again waits until that is cancelled too."""
TEXT, BASE64, SAME = "$text", "$base64", "$same"
"""How bytes are written, and what looks like it but is none."""
HANDLES = ("sandbox", "session", "snapshot")
"""Fields of requests that name something."""


class Record(Struct, frozen=True, omit_defaults=True):
    """A request and what came of it."""

    request: Request
    """As it was asked, with the handles of its time; 0: for any sandbox."""
    reply: Reply
    body: str = ""
    """Digest of what travelled beside the request; empty if nothing did."""
    pieces: tuple[tuple[Kind, bytes], ...] = ()
    """What came before the reply."""
    cut: bool = False
    """Whether there was more of that."""
    turn: int = 0
    """The how manieth request it was."""
    files: dict[str, bytes] = {}
    """Files that there are in the work folder afterwards; written by hand."""
    loose: bool = False
    """Whether any command with this script is meant, whatever its folder, variables and limits; written by hand."""

    @property
    def handle(self) -> int:
        """What it was asked of; 0: anything."""
        return handle(self.request)

    @property
    def key(self) -> str:
        """See `key`."""
        return key(self.request, self.body, loose=self.loose)


def handle(request: Request) -> int:
    """What a request is asked of; 0: nothing in particular."""
    return next((getattr(request, name) for name in HANDLES if hasattr(request, name)), 0)


def key(request: Request, body: str = "", *, loose: bool = False) -> str:
    """The content of a request, for comparison and for people: without handles, and without what is as always.

    A script in a session is the same as one that is executed; a loose key has the script and nothing else. Uploads are
    compared by their targets, because the times of files travel with them.
    """
    if loose or isinstance(request, Upload):
        body = ""
    if isinstance(request, Run):
        request = Execute(0, Exec(shell=request.script, timeout=request.timeout))
    if isinstance(request, Execute):
        command = Exec(argv=request.command.argv, shell=request.command.shell) if loose else request.command
        request = Execute(0, command, 0 if loose else request.size)
    named = [name for name in HANDLES if hasattr(request, name)]
    left_out = (*named, "type", "watched", "size")  # the size is in the digest
    content = {name: value for name, value in msgspec.to_builtins(request).items() if name not in left_out}
    text = json.dumps(_brief(content), sort_keys=True)
    return f"{type(request).__name__}{' anyhow' if loose else ''} {text}{f' with {body}' if body else ''}"


def _brief(content: Any) -> Any:
    """Without what is empty, and with one way to write a number."""
    if isinstance(content, float) and content.is_integer():
        return int(content)
    if isinstance(content, dict):
        return {name: short for name, value in content.items() if (short := _brief(value)) not in ({}, [], "", None)}
    return [_brief(value) for value in content] if isinstance(content, list | tuple) else content


def digest(body: bytes) -> str:
    """What a recording keeps of what travels beside a request."""
    return f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}" if body else ""


def recording(backend: Backend, path: Path) -> Backend:
    """`backend`, with everything that is asked of it and replied kept in a new file.

    Args:
        backend: a real one; closing what this returns closes it.
        path: of a JSON Lines file that is not there yet.

    Raises:
        DataError: the file exists.
        PalaestraError: it cannot be written.
    """
    if path.exists() and path.stat().st_size:
        raise DataError(f"{path} exists already: delete it to record anew")
    file = GrowingFile(path)
    file.append(_line({"recording": VERSION, "backend": backend.name}))
    return _RecordingBackend(backend, file)


def read(path: Path) -> list[Record]:
    """The records in a file, in the order in which they were asked.

    Raises:
        DataError: it is not there, or no recording of this version.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        head = json.loads(lines[0]) if lines else None
        if not isinstance(head, dict) or head.get("recording") != VERSION:
            raise DataError(f"{path} is no recording of version {VERSION}; record it anew")
        records = [msgspec.convert(_bytes(json.loads(line)), Record, builtin_types=(bytes,)) for line in lines[1:]]
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise DataError(f"cannot read the recording {path}: {error}") from error
    return sorted(records, key=lambda record: record.turn)


class _RecordingBackend(NearBackend):
    """Asks itself, and writes down what comes of it."""

    def __init__(self, backend: Backend, file: GrowingFile) -> None:
        super().__init__(backend.name, self)
        self._backend, self._file = backend, file
        self._desk = Desk(backend)
        self._turns = itertools.count(1)
        self._closed = False

    async def ask(self, request: Request, body: Body | None = None, sink: Sink | None = None) -> Reply:
        """Have it done, and keep it."""
        told, came, turn = _Told(sink), _Came(body), next(self._turns)
        reply: Reply = CANCELLED
        try:
            reply = await self._desk.ask(request, came.pieces() if body is not None else None, told)
        finally:
            if not self._closed:
                self._file.append(_line(Record(request, reply, came.digest, tuple(told.pieces), told.cut, turn)))
        return reply

    async def close(self) -> None:
        """Close every sandbox, the back end and the file."""
        self._closed = True
        await self._desk.close()
        await self._backend.close()
        self._file.close()


class _Told:
    """A sink that keeps what passes."""

    def __init__(self, sink: Sink | None) -> None:
        self.pieces: list[tuple[Kind, bytes]] = []
        self.cut = False
        self._sink, self._left = sink, MOST_BYTES

    def __call__(self, kind: Kind, data: bytes) -> Awaitable[None] | None:
        self._left -= len(data)
        if self._left >= 0:
            self.pieces.append((kind, data))
        self.cut = self._left < 0
        return self._sink(kind, data) if self._sink is not None else None


class _Came:
    """A body whose digest is taken as it passes."""

    def __init__(self, body: Body | None) -> None:
        self._body, self._size, self._hash = body, 0, hashlib.sha256()

    async def pieces(self) -> AsyncIterator[bytes]:
        """It."""
        assert self._body is not None
        async for piece in self._body:
            self._size += len(piece)
            self._hash.update(piece)
            yield piece

    @property
    def digest(self) -> str:
        """As `digest` says it."""
        return f"{self._size} bytes, sha256 {self._hash.hexdigest()}" if self._size else ""


def _line(value: Any) -> bytes:
    return json.dumps(_plain(msgspec.to_builtins(value, builtin_types=(bytes,)))).encode("ascii") + b"\n"


def _plain(value: Any) -> Any:
    """Bytes as something that a person reads where they are text."""
    if isinstance(value, bytes):
        try:
            return {TEXT: value.decode()}
        except UnicodeDecodeError:
            return {BASE64: base64.b64encode(value).decode("ascii")}
    if isinstance(value, dict):
        plain = {name: _plain(inner) for name, inner in value.items()}
        return {SAME: plain} if len(plain) == 1 and plain.keys() <= {TEXT, BASE64, SAME} else plain
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _bytes(value: Any) -> Any:
    """What `_plain` was given.

    Raises:
        ValueError: it was something else.
    """
    if not isinstance(value, dict):
        return [_bytes(inner) for inner in value] if isinstance(value, list) else value
    if value.keys() == {TEXT}:
        return str(value[TEXT]).encode()
    if value.keys() == {BASE64}:
        return base64.b64decode(str(value[BASE64]), validate=True)
    if value.keys() == {SAME} and isinstance(value[SAME], dict):
        value = value[SAME]
    return {name: _bytes(inner) for name, inner in value.items()}
