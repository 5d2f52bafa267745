"""Files and folders as a stream of bytes, and back: for sandboxes on other machines, and for recordings.

A stream is a row of what `transfer` reads and writes: the length of an entry in four bytes, then the entry and what
belongs to it as msgpack. Whoever unpacks trusts nothing of it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec

from palaestra.errors import SandboxPathError
from palaestra.sandboxes.runner import CHUNK
from palaestra.sandboxes.transfer import Files, entries

P = ParamSpec("P")
T = TypeVar("T")

PIECE = 64 * 1024
"""Most bytes that a stream is cut into."""
MOST_ENTRY_BYTES = CHUNK + 64 * 1024

_LENGTH = struct.Struct("<I")
_ENTRIES: msgspec.msgpack.Decoder[tuple[dict[str, Any], bytes]] = msgspec.msgpack.Decoder(tuple[dict[str, Any], bytes])


@asynccontextmanager
async def pack(source: Path) -> AsyncIterator[AsyncIterator[bytes]]:
    """The stream of a file or a folder, in pieces. Sockets, pipes and devices in it are left out.

    Raises:
        SandboxPathError: it does not exist, or cannot be read.
    """
    pieces = _pieces(source)
    try:
        yield _in_threads(pieces)
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

    async def take(data: bytes) -> None:
        await in_thread(unpacker.add, data)

    try:
        yield take
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
                entry, payload = _ENTRIES.decode(packed)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise SandboxPathError(f"what came is no stream of files: {error}") from error
            self._files.take(entry, payload)

    def finish(self) -> None:
        """Say that this was all.

        Raises:
            SandboxPathError: it cannot have been.
        """
        if self._held:
            raise SandboxPathError("the files did not come to their end; try again")
        self._files.finish()

    def _next(self) -> bytes | None:
        if len(self._held) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._held)[0]
        if end > MOST_ENTRY_BYTES:
            raise SandboxPathError("what came is no stream of files")
        if len(self._held) < end:
            return None
        packed = bytes(self._held[_LENGTH.size : end])
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


async def _in_threads(pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    while piece := await in_thread(next, pieces, b""):
        yield piece


def _pieces(source: Path) -> Generator[bytes, None, None]:
    """Small entries together, large ones cut up."""
    held = bytearray()
    for entry in entries(source):
        packed = msgspec.msgpack.encode(entry)
        held += _LENGTH.pack(len(packed)) + packed
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    if held:
        yield bytes(held)
