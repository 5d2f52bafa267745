"""Output of processes: the pipes that it comes through, and what is kept of it."""

from __future__ import annotations

import fcntl
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from palaestra.sandboxes.runner.loop import Runner

READ = 1 << 16
"""Bytes that are read at once."""
_FIONREAD = 0x541B


class Stream:
    """One output of a command: its head, its tail, and how much there was."""

    def __init__(self, name: str, cap: int) -> None:
        self.name, self.total = name, 0
        self._first, self._last = cap // 2, cap - cap // 2
        self._head, self._tail = bytearray(), bytearray()

    def take(self, data: bytes) -> None:
        self.total += len(data)
        if len(self._head) < self._first:
            room = self._first - len(self._head)
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data[-self._last :] if self._last else b""
            if len(self._tail) > 2 * self._last + READ:
                del self._tail[: len(self._tail) - self._last]

    def kept(self) -> tuple[bytes, bytes, int]:
        """Head, tail, and bytes between them."""
        head, tail = bytes(self._head), bytes(self._tail[-self._last :]) if self._last else b""
        dropped = self.total - len(head) - len(tail)
        return (head, tail, dropped) if dropped else (head + tail, b"", 0)


class Pipe:
    """The reading end of a pipe that processes of the sandbox write to."""

    def __init__(self, runner: Runner, on_data: Callable[[Pipe], None]) -> None:
        self._runner, self._on_data = runner, on_data
        self.fd, self.theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.theirs, True)
        self.open, self.watched = True, False
        self.left = -1
        """Bytes that are still to be read after the end of the program; -1: it has not ended."""
        self._grown = False

    def handle(self, on_data: Callable[[Pipe], None]) -> None:
        """Have something else done with what is there."""
        self._on_data = on_data

    def watch(self, wanted: bool) -> None:
        """Be told, or not, when there is something to read."""
        if wanted != self.watched and self.open:
            self.watched = wanted
            if wanted:
                self._runner.listen(self.fd, lambda: self._on_data(self))
            else:
                self._runner.ignore(self.fd)

    def read(self, most: int = READ) -> bytes | None:
        """What is there; `None`: nothing now; empty: nothing will come any more, and the pipe is closed."""
        try:
            data = os.read(self.fd, most)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.close()
        elif len(data) == READ and not self._grown:
            self._grow()
        if self.left >= 0:
            self.left = max(0, self.left - len(data))
        return data

    def _grow(self) -> None:
        self._grown = True
        try:
            fcntl.fcntl(self.fd, 1031, 1 << 20)  # F_SETPIPE_SZ: fewer wake-ups for who prints much
        except OSError:
            pass

    def settle(self) -> None:
        """From now on only what is in it counts."""
        if self.open:
            buffer = bytearray(4)
            fcntl.ioctl(self.fd, _FIONREAD, buffer)
            self.left = int.from_bytes(buffer, sys.byteorder)

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.close_theirs()
        if self.open:
            self.watch(False)
            self.open = False
            os.close(self.fd)
