"""Trees of files that come into the sandbox."""

from __future__ import annotations

import os

from palaestra.sandboxes.runner.files import write_all
from palaestra.sandboxes.runner.frames import raw, weight
from palaestra.sandboxes.runner.task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from palaestra.sandboxes.runner.frames import Header
    from palaestra.sandboxes.runner.loop import Runner


class Filing(Task):
    """A tree of files that comes from the other side."""

    def __init__(self, runner: Runner, header: Header) -> None:
        self._runner, self._id, self._base = runner, header["id"], runner.path(header["path"])
        self._file, self._current = -1, (b"", 0, 0)
        self._folders: list[tuple[bytes, int, int]] = []
        os.makedirs(os.path.dirname(self._base), exist_ok=True)

    def data(self, header: Header, payload: bytes) -> None:
        try:
            self._take(header["e"], payload)
        except (OSError, ValueError) as error:
            self._fail(error)
        else:
            self._runner.link.send({"id": self._id, "kind": "ack", "bytes": weight(payload)})

    def finish(self) -> None:
        try:
            self._end_file()
            for path, mode, when in reversed(self._folders):
                os.chmod(path, mode)
                os.utime(path, ns=(when, when))
        except OSError as error:
            return self._fail(error)
        self._runner.drop(self._id)
        self._runner.link.send({"id": self._id, "kind": "done"})

    def _fail(self, error: Exception) -> None:
        self.cancel()
        self._runner.drop(self._id)
        self._runner.refuse(self._id, error)

    def cancel(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take(self, entry: Header, payload: bytes) -> None:
        kind = entry["t"]
        if kind == "c":
            return self._write(int(entry["o"]), payload)
        self._end_file()
        path, mode, when = self._place(entry["p"]), int(entry.get("m", 0)) & 0o7777, int(entry.get("n", 0))
        if kind == "d":
            if not os.path.isdir(path) or os.path.islink(path):
                self._clear(path)
                os.mkdir(path, 0o700)
            else:
                os.chmod(path, 0o700)
            self._folders.append((path, mode, when))
            return
        self._clear(path)
        if kind == "f":
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._current = (path, mode, when)
            self._write(0, payload)
            os.ftruncate(self._file, int(entry["s"]))
        elif kind == "l":
            os.symlink(raw(entry["to"]), path)
            os.utime(path, ns=(when, when), follow_symlinks=False)
        elif kind == "h":
            os.link(self._place(entry["to"]), path, follow_symlinks=False)
        elif kind == "p":
            os.mkfifo(path, mode)

    def _write(self, offset: int, payload: bytes) -> None:
        if payload:
            os.lseek(self._file, offset, os.SEEK_SET)
            try:
                write_all(self._file, payload)
            except OSError as error:
                error.filename = self._current[0]
                raise

    def _place(self, name: str) -> bytes:
        parts = raw(name).split(b"/") if name else []
        if any(part in (b"", b".", b"..") for part in parts):
            raise ValueError("a path that leads out: " + name)
        return os.path.join(self._base, *parts)

    def _clear(self, path: bytes) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def _end_file(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            _, mode, when = self._current
            try:
                os.fchmod(file, mode)
                os.utime(file, ns=(when, when))
            finally:
                os.close(file)
