"""Metrics of a run: one JSON object a line, and TensorBoard where it is asked for.

TensorBoard's events mirror the file: where a run goes on, they are written anew from the rows that stand, and readers
drop what an earlier process wrote. So no step is there twice, and none that a kill caught before its flush is missing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palaestra.errors import DataError, require
from palaestra.files import GrowingFile


class MetricsWriter:
    """Appends rows to `path`. A row is on its way to the disk when `write` returns; `sync` waits until it is there.

    Raises:
        PalaestraError: the file cannot be opened or written, for example on a full disk.
    """

    def __init__(self, path: str | os.PathLike[str], *, tensorboard: Path | None = None) -> None:
        self.path = Path(path)
        self._file = GrowingFile(self.path)
        self._folder = tensorboard
        self._board: Any = None
        if tensorboard is not None:
            require("tensorboard", "train")

    @property
    def offset(self) -> int:
        """Bytes of the file. A checkpoint keeps it, and `truncate_to` comes back to it."""
        return self._file.size

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; numbers that are not finite become null."""
        self._file.append((json.dumps(finite(row), allow_nan=False) + "\n").encode())
        if self._folder is None:
            return
        if self._board is None:
            self._board = _board(self._folder)
            for standing in read_metrics(self.path):
                self._to_board(standing)
        else:
            self._to_board(row)

    def check_offset(self, offset: int) -> None:
        """Whether `truncate_to` would go back to `offset`; nothing is changed.

        Raises:
            DataError: the file is shorter.
        """
        if offset > self.offset:
            raise DataError(f"{self.path} has {self.offset} bytes, fewer than the {offset} that the checkpoint knows")

    def truncate_to(self, offset: int) -> None:
        """Drop the rows behind `offset`: how a resumed run goes back in time.

        Raises:
            DataError: see `check_offset`.
        """
        self.check_offset(offset)
        self._file.cut(offset)

    def sync(self) -> None:
        """Return when every row is on the disk itself."""
        self._file.sync()

    def close(self) -> None:
        """May be called more than once."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _to_board(self, row: Mapping[str, Any]) -> None:
        step = int(row.get("iteration", 0))
        for key, value in scalars(row):
            self._board.add_scalar(f"{row.get('tag', row.get('kind', 'train'))}/{key}", value, step)


def read_metrics(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file, oldest first. An unfinished last line (a writer was killed) is left out.

    Raises:
        DataError: the file cannot be read, or a line inside it is not JSON.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot read metrics: {error.strerror or error}") from error
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield json.loads(line)
        except ValueError:
            raise DataError(f"{path}: line {number} is not JSON") from None


def scalars(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row, those of nested mappings as `outer/inner`."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{key}", float(value)


def finite(value: Any) -> Any:
    """`value` with every float that JSON does not know replaced by `None`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def _board(folder: Path) -> Any:
    """A writer of events; if there are any in `folder`, readers are told to drop them."""
    writer: Any = require("torch.utils.tensorboard", "train").SummaryWriter
    earlier = any(folder.glob("events.*"))
    return writer(str(folder), purge_step=0 if earlier else None)
