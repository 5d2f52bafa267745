"""Frames: what the runner and whoever holds it say to each other.

A frame, in both directions: two lengths (32 bits, big-endian), a header in JSON, a payload. Requests carry an `id` and
are answered in any order. Data counts against a window per request and direction, opened again by `ack`. Bytes in
headers are text by UTF-8 with surrogate escapes.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Header = dict[str, Any]
    Frame = tuple[Header, bytes]

FRAME = struct.Struct(">II")
CHUNK = 1 << 18
"""Bytes of a payload that is part of something longer."""
WINDOW = 1 << 20
"""Bytes that may be under way for one request in one direction before the other side acknowledges some."""
OVERHEAD = 256
"""What a frame counts against the window beside its payload."""
LONGEST = 16 << 20
"""Bytes of a header or a payload beyond which the other side is not what it should be."""


def raw(text: str) -> bytes:
    """Bytes of a header's text.

    Raises:
        ValueError: there is a NUL in it, or it is no text.
    """
    if "\0" in text:
        raise ValueError("there is a NUL in it")
    return text.encode("utf-8", "surrogateescape")


def shown(path: bytes) -> str:
    """A path as a header's text."""
    return path.decode("utf-8", "surrogateescape")


def weight(payload: bytes) -> int:
    """What a frame of data counts against the window."""
    return len(payload) + OVERHEAD


def parsed(text: bytes) -> Header:
    """A header.

    Raises:
        EOFError: it is none: the other side is not what it should be.
    """
    try:
        header: Header = json.loads(text)
        if isinstance(header["id"], int) and isinstance(header["op"], str):
            return header
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise EOFError


class Link:
    """Frames over two descriptors."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.waiting = 0
        """Bytes not yet written."""
        self._inward = bytearray()
        self._outward: deque[memoryview] = deque()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)

    def receive(self) -> list[Frame]:
        """Frames that are there.

        Raises:
            EOFError: the other side is gone, or speaks something else.
        """
        try:
            data = os.read(self.reading, WINDOW)
        except BlockingIOError:
            return []
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        self._inward += data
        return self._frames()

    def _frames(self) -> list[Frame]:
        frames, at, view = [], 0, memoryview(self._inward)
        while len(view) - at >= FRAME.size:
            header, payload = FRAME.unpack_from(view, at)
            if max(header, payload) > LONGEST:
                raise EOFError
            begin = at + FRAME.size
            if len(view) - begin < header + payload:
                break
            at = begin + header + payload
            frames.append((parsed(bytes(view[begin : begin + header])), bytes(view[begin + header : at])))
        view.release()
        del self._inward[:at]
        return frames

    def send(self, header: Header, payload: bytes = b"") -> None:
        """Put a frame behind those that wait, and write what can be written."""
        text = json.dumps(header).encode()
        for part in (
            (FRAME.pack(len(text), len(payload)) + text + payload,)
            if len(payload) < 4096
            else (
                FRAME.pack(len(text), len(payload)) + text,
                payload,
            )
        ):
            self._outward.append(memoryview(part))
            self.waiting += len(part)
        self.flush()

    def flush(self) -> None:
        """Write what can be written.

        Raises:
            EOFError: the other side is gone.
        """
        try:
            while self._outward:
                part = self._outward[0]
                done = os.write(self.writing, part)
                self.waiting -= done
                if done == len(part):
                    self._outward.popleft()
                else:
                    self._outward[0] = part[done:]
        except BlockingIOError:
            pass
        except OSError as error:
            raise EOFError from error
