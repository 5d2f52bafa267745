"""Files and folders as a stream of bytes, and back: for sandboxes on other machines, and for recordings.

A stream is a row of what `transfer` reads and writes: two lengths of four bytes, an entry as JSON in ASCII (its escapes
can say any name of a file), and what belongs to it. Whoever unpacks trusts nothing of it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from palaestra.errors import SandboxPathError
from palaestra.sandboxes.runner.frames import CHUNK
from palaestra.sandboxes.transfer import Files, entries

P = ParamSpec("P")
T = TypeVar("T")

UPLOAD_BYTES = 1024 * 1024 * 1024
"""Most bytes of files in one upload."""
PIECE = 64 * 1024
"""Most bytes that a stream is cut into."""
BATCH = 16
"""Pieces that are read or written in one go: each costs a change of threads."""
MOST_BYTES = CHUNK + 64 * 1024
"""Of an entry and what belongs to it."""

_LENGTHS = struct.Struct("<II")


@asynccontextmanager
async def pack(source: Path) -> AsyncIterator[AsyncIterator[bytes]]:
    """The stream of a file or a folder, in pieces. Sockets, pipes and devices in it are left out.

    Raises:
        SandboxPathError: it does not exist, or cannot be read.
    """
    pieces = _pieces(source)
    try:
        yield _in_threads(await in_thread(_some, pieces), pieces)
    finally:
        pieces.close()


@asynccontextmanager
async def unpacking(
    target: Path, limit: int, *, all_links: bool = False
) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Unpack a stream to `target`, which must not exist; nothing is there unless it comes to its end.

    Args:
        target: where to.
        limit: most bytes of all files.
        all_links: whether also those are made that lead elsewhere.

    Yields:
        What takes the next bytes of the stream.

    Raises:
        SandboxPathError: `target` exists or cannot be written, or the stream is damaged, too large or cut off.
    """
    files = Files(target, limit, all_links=all_links)
    unpacker = Unpacker(files)
    held = bytearray()

    async def take(data: bytes) -> None:
        nonlocal held
        held += data
        if len(held) >= BATCH * PIECE:
            data, held = bytes(held), bytearray()
            await in_thread(unpacker.add, data)

    try:
        yield take
        await in_thread(unpacker.add, bytes(held))
        await in_thread(unpacker.finish)
    except BaseException:
        await in_thread(files.discard)
        raise


class Unpacker:
    """Bytes in, files out; for a thread, one call at a time."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._held = bytearray()

    def add(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            SandboxPathError: see `unpacking`.
        """
        self._held += data
        while (packed := self._next()) is not None:
            try:
                entry = json.loads(packed[0])
            except (ValueError, RecursionError) as error:
                raise SandboxPathError(f"what came is no stream of files: {error}") from error
            self._files.take(entry, packed[1])

    def finish(self) -> None:
        """Say that this was all.

        Raises:
            SandboxPathError: it cannot have been.
        """
        if self._held:
            raise SandboxPathError("the files did not come to their end; try again")
        self._files.finish()

    def _next(self) -> tuple[bytes, bytes] | None:
        if len(self._held) < _LENGTHS.size:
            return None
        first, second = _LENGTHS.unpack_from(self._held)
        if first + second > MOST_BYTES:
            raise SandboxPathError("what came is no stream of files")
        middle, end = _LENGTHS.size + first, _LENGTHS.size + first + second
        if len(self._held) < end:
            return None
        packed = bytes(self._held[_LENGTHS.size : middle]), bytes(self._held[middle:end])
        del self._held[:end]
        return packed


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, from a thread. Who is cancelled meanwhile leaves only when it is done."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _in_threads(some: list[bytes], pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while some:
        for piece in some:
            yield piece
        some = await in_thread(_some, pieces)


def _some(pieces: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(pieces, BATCH))


def _pieces(source: Path) -> Generator[bytes, None, None]:
    """Small entries together, large ones cut up."""
    held = bytearray()
    for entry, payload in entries(source):
        packed = json.dumps(entry).encode("ascii")
        held += _LENGTHS.pack(len(packed), len(payload)) + packed + payload
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    if held:
        yield bytes(held)
