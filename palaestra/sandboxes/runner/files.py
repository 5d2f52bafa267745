"""Single files, read and written."""

from __future__ import annotations

import errno
import os
import stat

from palaestra.sandboxes.runner.frames import CHUNK, WINDOW, weight
from palaestra.sandboxes.runner.task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from palaestra.sandboxes.runner.frames import Frame, Header
    from palaestra.sandboxes.runner.loop import Runner


class Reading(Task):
    """A file, or a tree of files, on its way to the other side."""

    def __init__(
        self, runner: Runner, id: int, frames: Generator[Frame, None, None], after: Callable[[], None]
    ) -> None:
        self._runner, self._id, self._frames, self._after, self._credit = runner, id, frames, after, WINDOW

    def pump(self) -> bool:
        if self._credit <= 0 or self._runner.link.waiting > WINDOW:
            return False
        try:
            header, payload = next(self._frames)
        except StopIteration:
            self._runner.link.send({"id": self._id, "kind": "done"})
            self._end()
        except (OSError, ValueError) as error:
            self._runner.refuse(self._id, error)
            self._end()
        else:
            self._credit -= weight(payload)
            self._runner.link.send({**header, "id": self._id, "kind": "data"}, payload)
            return True
        return False

    def ack(self, count: int) -> None:
        self._credit += count

    def cancel(self) -> None:
        self._end()

    def _end(self) -> None:
        self._runner.drop(self._id)
        self._frames.close()
        self._after()


class Writing(Task):
    """A file that is written beside its place and put there when it is whole."""

    def __init__(self, runner: Runner, header: Header) -> None:
        self._runner, self._id, self._mode = runner, header["id"], int(header["mode"]) & 0o7777
        self._path = runner.path(header["path"])
        folder, name = os.path.split(self._path)
        if not name or name in (b".", b"..") or (os.path.isdir(self._path) and not os.path.islink(self._path)):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._path)
        os.makedirs(folder, exist_ok=True)
        self._fresh = os.path.join(folder, b".palaestra-" + os.urandom(8).hex().encode())
        self._file = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def data(self, header: Header, payload: bytes) -> None:
        self._guard(lambda: write_all(self._file, payload))
        self._runner.link.send({"id": self._id, "kind": "ack", "bytes": weight(payload)})

    def finish(self) -> None:
        if self._guard(self._place):
            self._runner.drop(self._id)
            self._runner.link.send({"id": self._id, "kind": "done"})

    def _place(self) -> None:
        os.fchmod(self._file, self._mode)
        os.replace(self._fresh, self._path)
        os.close(self._file)

    def _guard(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except OSError as error:
            self.cancel()
            self._runner.drop(self._id)
            error.filename = self._path
            self._runner.refuse(self._id, error)
            return False
        return True

    def cancel(self) -> None:
        os.close(self._file)
        try:
            os.unlink(self._fresh)
        except OSError:
            pass


def write_all(file: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def file_frames(path: bytes, limit: int) -> Generator[Frame, None, None]:
    """The content of a regular file, in parts."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        left = limit
        while True:
            data = os.read(file, min(CHUNK, left + 1)) if status.st_size <= limit else b" " * (left + 1)
            left -= len(data)
            if left < 0:
                raise OSError(errno.EFBIG, "holds more than %d bytes" % limit, path)
            if not data:
                return
            yield {}, data
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(file)
