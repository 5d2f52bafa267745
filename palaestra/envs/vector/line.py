"""The line between a vector and one of its workers: a frame there, a frame back.

A frame is its length in four bytes, little end first, and so many bytes. An empty one says that all there is to say is
in the shared memory, so that most steps cost one system call on either side.
"""

from __future__ import annotations

import socket
import struct
import time

_LENGTH = struct.Struct("<I")
_EMPTY = _LENGTH.pack(0)


class Line:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._room = bytearray(1 << 16)
        self._seconds = 0.0

    def send(self, payload: bytes = b"") -> None:
        """Send a frame.

        Raises:
            OSError: the other end is gone, or takes nothing for as long as `wait_at_most` says.
        """
        self.socket.sendall(_LENGTH.pack(len(payload)) + payload if payload else _EMPTY)

    def receive(self, until: float | None = None) -> bytes:
        """The next frame.

        Args:
            until: by `time.monotonic`; `None` for no limit.

        Raises:
            TimeoutError: it did not come in time.
            EOFError: the other end is gone.
        """
        got = self._more(self._room, until)
        if got == 4 and self._room.startswith(_EMPTY):
            return b""
        while got < 4:
            got += self._more(memoryview(self._room)[got:], until)
        length = _LENGTH.unpack_from(self._room)[0]
        whole = bytearray(length)
        whole[: got - 4] = self._room[4:got]
        got -= 4
        while got < length:
            got += self._more(memoryview(whole)[got:], until)
        return bytes(whole)

    def wait_at_most(self, seconds: float) -> None:
        """From now on, let the kernel end whatever waits for the other end for longer."""
        if abs(seconds - self._seconds) > 0.05 * self._seconds:
            self._seconds = max(seconds, 0.001)  # none at all would be for ever
            packed = struct.pack("ll", int(self._seconds), int(self._seconds % 1 * 1e6))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)

    def _more(self, room: bytearray | memoryview, until: float | None) -> int:
        if until is not None:
            self.wait_at_most(until - time.monotonic())
        try:
            got = self.socket.recv_into(room)
        except BlockingIOError:
            raise TimeoutError from None
        except OSError:
            got = 0
        if not got:
            raise EOFError
        return got
