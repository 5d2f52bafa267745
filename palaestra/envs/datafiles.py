"""Data files of the user's, read with suspicion: bounded, decoded into typed records, never unpickled or run."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from palaestra.errors import DataError, require

T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)

VARIABLE = "PALAESTRA_DATA"
"""Environment variable: a folder with a folder of data for each suite."""
MOST_BYTES = 1 << 30
"""Of a file, after decompression."""
MOST_LINE = 1 << 22
"""Bytes of one line."""
MOST_LINES = 2_000_000
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
    b"(\xb5/\xfd": "compressed with zstandard",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"SQLite": "an SQLite database",
    **{bytes([0x80, protocol]): "a pickle, which is never read," for protocol in range(2, 6)},
}


def read_jsonl(
    path: str | Path,
    record: type[T],
    *,
    most_bytes: int = MOST_BYTES,
    most_line: int = MOST_LINE,
    most_lines: int = MOST_LINES,
) -> Iterator[T]:
    """The records of a JSON-lines file, plain or gzipped, one at a time; blank lines are passed over.

    Args:
        path: the file; `~` is expanded.
        record: what every line is, for example a `msgspec.Struct`.
        most_bytes: of the whole file, after decompression.
        most_line: bytes of one line.
        most_lines: blank ones included.

    Raises:
        DataError: while iterating: no such file, not JSON lines, truncated, without any record, larger than it may be,
            or a line is not a `record`. The message names file, line and what is wrong.
    """
    decoder, left, number, found = msgspec.json.Decoder(record), most_bytes, 0, False
    with _opened(path) as stream:
        while line := stream.readline(min(most_line, left) + 1):
            number, left = number + 1, left - len(line)
            if left < 0:
                raise DataError(f"{path}, line {number}: the file has more than {most_bytes} bytes, which is the limit")
            if len(line) > most_line:
                raise DataError(f"{path}, line {number}: it is longer than {most_line} bytes, which is the limit")
            if number > most_lines:
                raise DataError(f"{path} has more than {most_lines} lines, which is the limit")
            if line := line.strip():
                found = True
                yield _decoded(decoder, line, f"{path}, line {number}")
    if not found:
        raise DataError(f"{path} is empty: it has no record")


def read_json(path: str | Path, record: type[T], *, most_bytes: int = 1 << 28) -> T:
    """What the JSON file at `path`, plain or gzipped, holds.

    Args:
        path: the file; `~` is expanded.
        record: what it is to be, for example `list[Product]`.
        most_bytes: after decompression.

    Raises:
        DataError: no such file, not JSON, truncated, empty, larger than it may be, or not a `record`.
    """
    with _opened(path) as stream:
        text = stream.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise DataError(f"{path} has more than {most_bytes} bytes, which is the limit")
    if not text.strip():
        raise DataError(f"{path} is empty")
    return _decoded(msgspec.json.Decoder(record), text, str(path))


def read_parquet(
    path: str | Path, record: type[R], *, most_bytes: int = MOST_BYTES, most_rows: int = MOST_LINES
) -> Iterator[R]:
    """The rows of a Parquet file, one at a time.

    Args:
        path: the file; `~` is expanded.
        record: what every row is, by the names of its columns; other columns are not read.
        most_bytes: of all columns together, decompressed.
        most_rows: of them.

    Raises:
        DataError: while iterating: no such file, not Parquet, damaged, empty, larger than it may be, or a row is not a
            `record`.
        MissingExtraError: pyarrow is not installed.
    """
    file = check_file(path)
    arrow, parquet = require("pyarrow", "hub"), require("pyarrow.parquet", "hub")
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            size = sum(table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups))
            if size > most_bytes or table.metadata.num_rows > most_rows:
                raise DataError(f"{path} has {table.metadata.num_rows} rows of {size} bytes, which is over the limit")
            names = [name for name in _fields(record) if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=256, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield _converted(row, record, f"{path}, row {number}")
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {(str(error).splitlines() or [''])[0][:300]}") from None
    if not number:
        raise DataError(f"{path} is empty: it has no row")


def find_data(folder: str) -> Path | None:
    """`folder` below the folder that the environment variable PALAESTRA_DATA names, if there is one."""
    root = os.environ.get(VARIABLE)
    found = Path(root).expanduser() / folder if root else None
    return found if found is not None and found.is_dir() else None


def check_file(path: str | Path) -> Path:
    """`path` with `~` expanded, if a plain file lies there.

    Raises:
        DataError: there is nothing, a folder, or something that could be read for ever.
    """
    file = Path(path).expanduser()
    try:
        if file.is_file():
            return file
        what = "is a folder" if file.is_dir() else "is not a plain file" if file.exists() else "does not exist"
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL in it
        what = f"cannot be read: {error}"
    raise DataError(f"{str(path)[:500]!r} {what}; a data file is wanted")


@contextmanager
def _opened(path: str | Path) -> Iterator[IO[bytes]]:
    """The file, decompressed; whatever reading it raises is a `DataError`."""
    file = check_file(path)
    try:
        with open(file, "rb") as raw:
            start = raw.read(8)
            raw.seek(0)
            if start.startswith(_GZIP):
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    _refuse_foreign(file, unpacked.peek(8)[:8])
                    yield unpacked  # type: ignore[misc]  # a GzipFile reads as any other file
                return
            if file.suffix == ".gz":
                raise DataError(f"{path} is not what its name says: it is not gzipped")
            _refuse_foreign(file, start)
            yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or damaged: {error}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _refuse_foreign(path: Path, start: bytes) -> None:
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {what} and not JSON")
    if b"\0" in start:
        raise DataError(f"{path} is binary and not JSON in UTF-8")


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes, where: str) -> T:
    try:
        return decoder.decode(text.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: {_brief(error)}") from None


def _fields(record: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(record)]


def _converted(row: object, record: type[T], where: str) -> T:
    try:
        return msgspec.convert(row, record)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {_brief(error)}") from None


def _brief(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8: {error.reason} at byte {error.start}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)[:500]
