"""Trees of files as entries: folders (`d`), files (`f`, of which `c` is more), links (`l`, hard `h`), pipes (`p`)."""

from __future__ import annotations

import errno
import os
import stat

from palaestra.sandboxes.runner.frames import CHUNK, OVERHEAD, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from palaestra.sandboxes.runner.frames import Frame, Header


class Tree:
    """A file or a folder as entries, each followed by the data that is in it."""

    def __init__(self, root: bytes, limit: int, chunk: int) -> None:
        self._root, self._left, self._limit, self._chunk = root, limit, limit, chunk
        self._links: dict[tuple[int, int], str] = {}
        self._device = os.stat(root).st_dev

    def frames(self) -> Generator[Frame, None, None]:
        """Folders before what is in them.

        Raises:
            OSError: something cannot be read, or there are more bytes than the limit.
        """
        opened: list[tuple[bytes, int]] = []
        try:
            yield from self._walk(opened)
        finally:
            for path, mode in reversed(opened):
                os.chmod(path, mode)

    def _walk(self, opened: list[tuple[bytes, int]]) -> Iterator[Frame]:
        waiting = [(self._root, "")]
        while waiting:
            path, name = waiting.pop()
            status = os.lstat(path) if name else os.stat(path)
            entry = {"p": name, "m": stat.S_IMODE(status.st_mode), "n": status.st_mtime_ns}
            if stat.S_ISDIR(status.st_mode) and status.st_dev == self._device:
                yield self._counted({**entry, "t": "d"})
                if status.st_mode & 0o500 != 0o500 and status.st_uid == os.getuid():
                    os.chmod(path, 0o700)
                    opened.append((path, stat.S_IMODE(status.st_mode)))
                prefix = name + "/" if name else ""
                inside = sorted(os.listdir(path), reverse=True)
                waiting += [(os.path.join(path, each), prefix + shown(each)) for each in inside]
            elif stat.S_ISREG(status.st_mode) and status.st_dev == self._device:
                yield from self._file(path, entry, status)
            elif stat.S_ISLNK(status.st_mode):
                yield self._counted({**entry, "t": "l", "to": shown(os.readlink(path))})
            elif stat.S_ISFIFO(status.st_mode):
                yield self._counted({**entry, "t": "p"})

    def _counted(self, entry: Header) -> Frame:
        self._count(OVERHEAD)
        return {"e": entry}, b""

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise OSError(errno.EFBIG, "holds more than %d bytes" % self._limit, self._root)

    def _file(self, path: bytes, entry: Header, status: os.stat_result) -> Iterator[Frame]:
        same = (status.st_dev, status.st_ino)
        if status.st_nlink > 1:
            if same in self._links:
                yield self._counted({**entry, "t": "h", "to": self._links[same]})
                return
            self._links[same] = entry["p"]
        entry.update({"t": "f", "s": status.st_size})
        file = readable(path, status)
        try:
            parts = holding(file, status.st_size, self._chunk)
            offset, data = next(parts, (0, b""))
            self._count(len(data) + OVERHEAD)
            yield {"e": entry}, b"" if offset else data
            if offset:
                yield {"e": {"t": "c", "o": offset}}, data
            for offset, data in parts:
                self._count(len(data))
                yield {"e": {"t": "c", "o": offset}}, data
        finally:
            os.close(file)


def readable(path: bytes, status: os.stat_result) -> int:
    """A file to read from, also one of ours that is not to be read."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except PermissionError:
        os.chmod(path, 0o600)
        try:
            return os.open(path, flags)
        finally:
            os.chmod(path, stat.S_IMODE(status.st_mode))


def holding(file: int, size: int, chunk: int = CHUNK) -> Iterator[tuple[int, bytes]]:
    """Offsets and data of a file without its holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
            end = min(size, os.lseek(file, at, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            end = size
        while at < end:
            data = os.pread(file, min(chunk, end - at), at)
            if not data:
                return
            yield at, data
            at += len(data)
