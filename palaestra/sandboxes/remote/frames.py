"""What client and server of `palaestra sandboxes serve` send each other: msgpack in the binary frames of a WebSocket.

Many calls share one socket. Of each, whoever sends pieces may send `WINDOW` bytes, and so many more as the other side
has said by `Credit` that it is done with: a slow reader holds up its own call, and nobody keeps more than that of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from palaestra.errors import DataError, SandboxError
from palaestra.sandboxes.requests import Count, Reply, Request

M = TypeVar("M")

DEFAULT_PORT = 8643
KEY_PARAMETER = "key"
"""Of `/connect`: what `Hello` said, to go on where a connection broke."""
SPEECH = 1
"""Version of all this."""

PIECE = 64 * 1024
"""Most bytes in one piece."""
WINDOW = 1024 * 1024
"""Bytes of a call that may be on their way in each direction; a piece counts for some more than its data."""
MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest frame: a command with its arguments and variables, or a piece."""
REPLY_BYTES = 256 * 1024 * 1024
"""Largest reply: a file, or what was kept of a command's output."""

Kind = Literal["body", "stdout", "stderr", "archive", "reply"]


class Hello(Struct, frozen=True, tag=True):
    """The first frame, of the server."""

    speech: int
    """See `SPEECH`."""
    key: str
    """Opens `/connect?key=...` after the connection broke, and so the same sandboxes."""
    grace: float
    """Seconds for which they wait for that."""


class Call(Struct, frozen=True, tag=True):
    """A request. It ends with `End`."""

    id: Count
    """The caller's choice, not that of a call that runs."""
    request: Request | bytes
    """As bytes where it holds text that is none, such as the names of some files; see `odd`."""
    body: bool
    """Whether pieces of a body follow."""


class Piece(Struct, frozen=True, tag=True):
    """Bytes that belong to a call."""

    id: Count
    kind: Kind
    data: Annotated[bytes, Meta(max_length=PIECE)]
    last: bool = False
    """Of the body."""


class Credit(Struct, frozen=True, tag=True):
    """So many bytes of pieces are done with."""

    id: Count
    size: Annotated[int, Meta(ge=0, le=WINDOW)]


class Cancel(Struct, frozen=True, tag=True):
    """Nobody waits for this call any more: stop it. It ends with `End` all the same."""

    id: Count


class End(Struct, frozen=True, tag=True):
    """A call is over."""

    id: Count
    data: bytes
    """The last bytes of its reply, in msgpack."""


ToServer = Call | Piece | Credit | Cancel
ToClient = Hello | Piece | Credit | End

_TO_SERVER: msgspec.msgpack.Decoder[ToServer] = msgspec.msgpack.Decoder(ToServer)
_TO_CLIENT: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)
_REQUEST: Any = Request
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def odd(request: Request) -> bytes:
    """A request as JSON in ASCII, whose escapes can say what UTF-8 cannot."""
    return json.dumps(msgspec.to_builtins(request)).encode("ascii")


def plain(request: Request | bytes) -> Request:
    """The request of a call.

    Raises:
        DataError: it is none.
    """
    if not isinstance(request, bytes):
        return request
    try:
        converted: Request = msgspec.convert(json.loads(request), _REQUEST)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise DataError(f"what came makes no sense: {error}") from error
    return converted


def encode(frame: ToServer | ToClient | Reply) -> bytes:
    """A frame, or a reply for the pieces of one.

    Raises:
        UnicodeEncodeError: it holds text that is none.
        SandboxError: it holds what no message can carry.
    """
    try:
        return msgspec.msgpack.encode(frame)
    except UnicodeEncodeError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SandboxError(f"cannot send this to sandboxes elsewhere: {error}") from error


def to_server(frame: bytes) -> ToServer:
    """What a client says.

    Raises:
        DataError: it is nothing that a client may say.
    """
    return _decoded(_TO_SERVER.decode, frame)


def to_client(frame: bytes) -> ToClient:
    """What a server says.

    Raises:
        DataError: it is nothing that a server may say.
    """
    return _decoded(_TO_CLIENT.decode, frame)


def to_reply(data: bytes) -> Reply:
    """The reply that came in pieces.

    Raises:
        DataError: it is none.
    """
    return _decoded(_REPLIES.decode, data)


def _decoded(decode: Callable[[bytes], M], data: bytes) -> M:
    try:
        return decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise DataError(f"what came makes no sense: {error}") from error
