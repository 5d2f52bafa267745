"""Trajectories on disk: an append-only file of checked frames, which a kill at any byte cannot make unreadable.

Layout (all integers little-endian):

    palaestra-trajectories 1\\n                        the magic line; the number is the schema version
    [u32 length][u32 check][payload of `length` bytes]  one frame per trajectory, any number of them

A payload is the zlib-compressed MessagePack form of one `Trajectory`. `check` is the CRC-32 of the four length bytes
and the payload; because it covers the length, a run of zeros (what some file systems leave after a power cut) is no
frame. Whoever is killed while writing leaves a **torn tail**, the beginning of one frame: readers stop before it and
the next writer cuts it off. Bad bytes with sound frames behind them are **corruption** instead, and are reported.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import msgspec

from palaestra.errors import DataError
from palaestra.files import GrowingFile
from palaestra.trajectories.record import SCHEMA_VERSION, Trajectory

MAX_FRAME_BYTES = 32 << 20
"""Longest payload on disk; a longer length field is corruption, and is never allocated."""
MAX_RECORD_BYTES = 128 << 20
"""Longest payload after decompression, so that a hostile file cannot fill the memory."""

_NAME = b"palaestra-trajectories "
_MAGIC = b"%s%d\n" % (_NAME, SCHEMA_VERSION)
_HEADER = struct.Struct("<II")
_ZLIB_LEVEL = 6
_ZLIB_START = zlib.compress(b"", _ZLIB_LEVEL)[:2]

_decoder = msgspec.msgpack.Decoder(Trajectory)


class TrajectoryWriter:
    """Appends trajectories to the file at `path`, creating it and its folder where they do not exist.

    Every `append` hands its bytes to the operating system, so that they survive the death of the process; `sync` (and
    leaving the context) makes them survive the death of the machine. A torn tail of an existing file is cut off.

    Raises:
        DataError: if the file is of another format, of a newer schema, or corrupt before its end.
        PalaestraError: if it cannot be opened or written, for example on a full disk.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = GrowingFile(self.path)
        try:
            self._ends = self._recover()
        except BaseException:
            self._file.close()
            raise

    @property
    def offset(self) -> int:
        """Bytes written so far. A checkpoint keeps it, and `truncate_to` comes back to it."""
        return self._ends[-1]

    def __len__(self) -> int:
        """Trajectories in the file."""
        return len(self._ends) - 1

    def append(self, trajectory: Trajectory) -> None:
        """Write one trajectory.

        If the write fails the file is left as it was before, readable, and the writer can go on.

        Raises:
            DataError: if the record is beyond the size limits of the format.
            PalaestraError: if the file cannot be written.
        """
        frame = _frame(trajectory)
        self._file.append(frame)
        self._ends.append(self.offset + len(frame))

    def sync(self) -> None:
        """Return when everything appended is on the disk itself."""
        self._file.sync()

    def check_offset(self, offset: int) -> None:
        """Whether `truncate_to` would go back to `offset`; nothing is changed.

        Raises:
            DataError: no frame ends there, because the file is shorter or is not the one that the offset is of.
        """
        if offset not in self._ends:
            raise DataError(
                f"{self.path}: no trajectory ends at byte {offset} (the file has {self.offset} bytes); "
                "it is not the file that the checkpoint was made with"
            )

    def truncate_to(self, offset: int) -> None:
        """Drop everything behind `offset`, an earlier value of the property: how a resumed run goes back in time.

        Raises:
            DataError: see `check_offset`.
        """
        self.check_offset(offset)
        self._file.cut(offset)
        del self._ends[self._ends.index(offset) + 1 :]

    def close(self) -> None:
        """Sync and close. May be called more than once."""
        if not self._file.raw.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recover(self) -> list[int]:
        """The offsets after the magic line and after each frame, once the file ends with the last of them."""
        ends = [len(_MAGIC)]
        if _read_magic(self.path, self._file.raw):
            ends += [frame.end for frame in _frames(self.path, self._file.raw)]
            self._file.cut(ends[-1])
        else:
            self._file.cut(0)
            self._file.append(_MAGIC)
        return ends


def read_trajectories(
    path: str | os.PathLike[str], *, strict: bool = False, salvage: bool = False
) -> Iterator[Trajectory]:
    """The trajectories of a file, oldest first, one in memory at a time. Safe while another process appends.

    Args:
        path: the file.
        strict: a torn tail is an error, rather than the end.
        salvage: corrupt frames are skipped, rather than an error.

    Raises:
        DataError: naming the byte offset, as the arguments say; and for another format or a newer schema.
    """
    path = Path(path)
    try:
        file = open(path, "rb")  # noqa: SIM115 (the generator's `with` below closes it)
    except OSError as error:
        raise DataError(f"{path}: cannot read trajectories: {error.strerror or error}") from error
    with file:
        if not _read_magic(path, file):
            if strict:
                raise DataError(f"{path}: torn in its first line, at byte 0")
            return
        for frame in _frames(path, file, strict=strict, salvage=salvage):
            try:
                yield _decode(path, frame)
            except DataError:
                if not salvage:
                    raise


class _Frame(NamedTuple):
    start: int
    payload: bytes

    @property
    def end(self) -> int:
        return self.start + _HEADER.size + len(self.payload)


def encoded(trajectory: Trajectory) -> bytes:
    """One trajectory as MessagePack, for a message to another process.

    Raises:
        DataError: it holds a value that has no JSON shape.
    """
    return msgspec.msgpack.encode(trajectory, enc_hook=_plain)


def decoded(message: bytes) -> Trajectory:
    """The trajectory that `encoded` made a message of.

    Raises:
        DataError: it is none.
    """
    try:
        return _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the message holds no trajectory: {error}") from error


def _frame(trajectory: Trajectory) -> bytes:
    record = encoded(trajectory)
    payload = zlib.compress(record, _ZLIB_LEVEL)
    if len(record) > MAX_RECORD_BYTES or len(payload) > MAX_FRAME_BYTES:
        raise DataError(
            f"trajectory {trajectory.id!r} has {len(record):,} bytes; the format ends at {MAX_RECORD_BYTES:,}"
        )
    return _HEADER.pack(len(payload), _check(payload)) + payload


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays (and anything alike) in `meta` and `tool`, as JSON-shaped values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise DataError(f"a trajectory can only hold JSON-shaped values, not {type(value).__name__}")


def _check(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "little")))


def _decode(path: Path, frame: _Frame) -> Trajectory:
    try:
        inflate = zlib.decompressobj()
        record = inflate.decompress(frame.payload, MAX_RECORD_BYTES)
        if not inflate.eof:
            raise DataError(
                f"{path}: the frame at byte {frame.start} is cut short, or beyond {MAX_RECORD_BYTES:,} bytes"
            )
        return _decoder.decode(record)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: the frame at byte {frame.start} holds no trajectory: {error}") from error


def _read_magic(path: Path, file: BinaryIO | FileIO) -> bool:
    """Leave `file` behind its magic line; False if it has only the beginning of one, or nothing."""
    file.seek(0)
    head = file.read(len(_NAME) + 12)
    line, newline, _ = head.partition(b"\n")
    if not newline and _MAGIC.startswith(head):
        return False
    version = line.removeprefix(_NAME)
    if not newline or not line.startswith(_NAME) or not version.isdigit():
        raise DataError(f"{path}: not a Palaestra trajectory file")
    if int(version) != SCHEMA_VERSION:
        raise DataError(
            f"{path}: has trajectory schema {int(version)}, this Palaestra reads {SCHEMA_VERSION}; "
            "use the version that wrote it"
        )
    file.seek(len(line) + 1)
    return True


def _frames(path: Path, file: BinaryIO | FileIO, *, strict: bool = False, salvage: bool = False) -> Iterator[_Frame]:
    """The sound frames from the file's position on; ends before a torn tail."""
    start: int | None = file.tell()
    while start is not None:
        file.seek(start)
        header = file.read(_HEADER.size)
        if not header:
            return
        frame = _sound(start, header, file)
        if frame is not None:
            yield frame
            start = frame.end
            continue
        following = _find_frame(file, start + 1)
        if following is None and not strict:
            return
        if following is None:
            raise DataError(f"{path}: torn at byte {start}: the last trajectory is incomplete")
        if not salvage:
            raise DataError(f"{path}: corrupt at byte {start}, with sound trajectories from byte {following} on")
        start = following


def _sound(start: int, header: bytes, file: BinaryIO | FileIO) -> _Frame | None:
    """The frame with this header, if its payload, read from `file`, is whole and passes the check."""
    if len(header) < _HEADER.size:
        return None
    length, check = _HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        return None
    payload = file.read(length)
    return _Frame(start, payload) if len(payload) == length and _check(payload) == check else None


def _find_frame(file: BinaryIO | FileIO, start: int) -> int | None:
    """Where the first sound frame at or behind `start` begins; tells corruption from a torn tail, which has none."""
    file.seek(start)
    rest = file.read()
    found = rest.find(_ZLIB_START, _HEADER.size)
    while found >= 0:
        at = found - _HEADER.size
        length, check = _HEADER.unpack_from(rest, at)
        payload = rest[found : found + length]
        if len(payload) == length and _check(payload) == check:
            return start + at
        found = rest.find(_ZLIB_START, found + 1)
    return None
