"""Frames of msgpack on a stream, and sockets handed from process to process.

A frame is its length in four bytes, little end first, and so many bytes of msgpack.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Sequence

import msgspec

from palaestra.envs.isolation.protocol import MAX_MESSAGE_BYTES, Call, Result, decoded, encode
from palaestra.errors import DataError

CHUNK = 1 << 16
"""Bytes asked of a socket at once."""
MOST_SOCKETS = 250
"""Sockets in one message; Linux allows 253."""

_LENGTH = struct.Struct("<I")


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Copy yourself for each of the sockets that come with this. Answer: `Forked` or `Refused`."""


class Release(msgspec.Struct, frozen=True, tag=True):
    """Close the environment, if there is one, for another to come. Answer: `Value`, whether it left nothing behind."""


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Import the code of an environment. No answer."""

    entry_point: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Forking is not right, or failed."""

    reason: str


class Forked(msgspec.Struct, frozen=True, tag=True):
    """There are copies, each of which serves one of the sockets."""

    pids: list[int]


Order = Call | Fork | Release | Prepare
Reply = Result | Refused | Forked

_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def frame(message: object) -> bytes:
    """A message as a frame.

    Raises:
        EnvError: it holds what no message can carry, or is too large.
    """
    packed = encode(message)
    return _LENGTH.pack(len(packed)) + packed


def decode_order(packed: bytes) -> Order:
    """What a worker is told.

    Raises:
        DataError: it is no order.
    """
    return decoded(_ORDERS.decode, packed, "not a call to a worker")


def decode_reply(packed: bytes) -> Reply:
    """What a worker answers.

    Raises:
        DataError: it is no answer.
    """
    return decoded(_REPLIES.decode, packed, "a worker answered what is no answer")


class Frames:
    """Bytes in, the messages of whole frames out."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._length: int | None = None

    @property
    def missing(self) -> int:
        """How many bytes to ask for next: all that the present frame lacks, where it is a long one."""
        return max(CHUNK, (self._length or 0) - len(self._held))

    def add(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, in order, packed as they came.

        Raises:
            DataError: a frame is longer than a message may be.
        """
        if not self._held and len(data) >= 4 and len(data) == _LENGTH.unpack_from(data)[0] + 4 <= MAX_MESSAGE_BYTES:
            return [data[4:]]  # one whole frame, as nearly always
        self._held += data
        done = []
        while (packed := self._take()) is not None:
            done.append(packed)
        return done

    def _take(self) -> bytes | None:
        if self._length is None:
            if len(self._held) < 4:
                return None
            self._length = _LENGTH.unpack_from(self._held)[0]
            del self._held[:4]
            if self._length > MAX_MESSAGE_BYTES:
                raise DataError(f"a message of {self._length:,} bytes is over the limit of {MAX_MESSAGE_BYTES:,}")
        if len(self._held) < self._length:
            return None
        packed = bytes(self._held[: self._length])
        del self._held[: self._length]
        self._length = None
        return packed


def send_sockets(through: socket.socket, data: bytes, sockets: Sequence[socket.socket]) -> int:
    """Send `data` with `sockets`, at most `MOST_SOCKETS`, which stay open here too; returns how many bytes went."""
    numbers = array.array("i", [each.fileno() for each in sockets])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if sockets else []
    return through.sendmsg([data], ancillary)


def receive_sockets(through: socket.socket, size: int) -> tuple[bytes, list[socket.socket]]:
    """Up to `size` bytes, none at the end of the stream, and the sockets that came with them."""
    numbers = array.array("i")
    room = socket.CMSG_LEN(MOST_SOCKETS * numbers.itemsize)
    data, ancillary, _, _ = through.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, packed in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(packed[: len(packed) - len(packed) % numbers.itemsize])
    return data, [socket.socket(fileno=number) for number in numbers]
