"""What client and server of `palaestra serve` say to each other, in either of two spellings.

A binary frame is msgpack, a text frame the same as JSON; an answer comes in the spelling of its question. A client
never sends a spec: it names an environment that the server knows, so it cannot have anything else loaded there.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from palaestra.envs.isolation.protocol import (
    Ask,
    Failed,
    Made,
    ResetCall,
    ResetDone,
    StepCall,
    StepDone,
    Value,
    decoded,
    encode,
    encode_json,
)

DEFAULT_PORT = 8642
KEY_PARAMETER = "key"
"""Of `/session`: the key of a forked environment to continue."""


class Open(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Make an environment. Answer: `Made`."""

    id: str
    """One that the server serves; without `-vN` the newest version there."""
    max_episode_steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Instead of the server's own."""
    kwargs: dict[str, Any] = {}
    """Arguments of the environment. Others than the server's own only if the server allows them."""


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Make independent continuations of the episode. Answer: `Forked`."""

    n: Annotated[int, msgspec.Meta(ge=0)]


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The continuations are there."""

    keys: tuple[str, ...]
    """Each opens one `/session?key=...`, once and soon."""


Request = Open | ResetCall | StepCall | Ask | Fork
Reply = Made | ResetDone | StepDone | Value | Failed | Forked

_REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_JSON_REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def decode_request(frame: bytes | str) -> Request:
    """The request in a frame: msgpack in bytes, JSON in a string.

    Raises:
        DataError: it is none.
    """
    otherwise = "not a request to an environment server"
    if isinstance(frame, str):
        return decoded(_JSON_REQUESTS.decode, frame, otherwise)
    return decoded(_REQUESTS.decode, frame, otherwise)


def encode_reply(reply: Reply, *, as_json: bool) -> bytes | str:
    """A reply as a frame: JSON in a string, else msgpack in bytes.

    Raises:
        EnvError: it holds what no message can carry, or is too large.
    """
    return encode_json(reply) if as_json else encode(reply)


def decode_reply(frame: bytes) -> Reply:
    """The reply in a binary frame.

    Raises:
        DataError: it is none.
    """
    return decoded(_REPLIES.decode, frame, "what came is no answer of an environment server")
