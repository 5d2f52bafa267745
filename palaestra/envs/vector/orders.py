"""What a vector tells its workers, and what they answer, beside what is in the shared memory.

Fields of type `bytes` hold values as `packing` packs them.
"""

from __future__ import annotations

import msgspec

from palaestra.envs.vector.source import Source
from palaestra.errors import DataError


class Make(msgspec.Struct, frozen=True, tag=True):
    """Make the environments. Answer: `Made`, to which the file of the shared memory is sent; answer: nothing."""

    source: Source
    first: int
    """Number of the first environment."""
    last: int
    """Number after the last one."""
    total: int
    """Environments of all workers."""
    worker: int
    """Number of the worker."""
    workers: int
    autoreset_mode: str


class Reset(msgspec.Struct, frozen=True, tag=True):
    """Begin episodes. Answer: `Done`."""

    seeds: list[int | None]
    mask: list[bool] | None
    """Which to reset; `None` for all."""
    options: bytes


class Act(msgspec.Struct, frozen=True, tag=True):
    """Step; an empty frame says the same, where all actions are in the shared memory. Answer: `Done`."""

    actions: bytes
    """For each leaf of the action space that is not of fixed size, the values of all environments."""


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Call a method of every environment, or read an attribute. Answer: `Values`."""

    name: str
    arguments: bytes
    """Positional and keyword ones."""


class Assign(msgspec.Struct, frozen=True, tag=True):
    """Set an attribute of every environment. Answer: nothing."""

    name: str
    values: bytes


class Close(msgspec.Struct, frozen=True, tag=True):
    """Close all environments and end. Answer: nothing."""


class Made(msgspec.Struct, frozen=True, tag=True):
    """The environments are there."""

    spaces: bytes
    """Descriptions of the observation and action space that all have."""
    metadata: bytes
    render_mode: str | None


class Done(msgspec.Struct, frozen=True, tag=True):
    """All is in the shared memory but this; where there is nothing else, an empty frame says so."""

    infos: bytes
    """Pairs of the number of an environment and its info."""
    observations: bytes
    """For each leaf of the observation space that is not of fixed size, the values of all environments."""


class Values(msgspec.Struct, frozen=True, tag=True):
    """What environments returned."""

    values: bytes


class Failure(msgspec.Struct, frozen=True, tag=True):
    """An environment raised. Those after it have done nothing."""

    number: int
    error: str
    """Name of the exception's class."""
    message: str
    where: str
    """`file:line` of the innermost frame."""


Order = Make | Reset | Act | Ask | Assign | Close
Answer = Made | Done | Values | Failure

_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)

encode = msgspec.msgpack.encode


def decode_order(packed: bytes) -> Order:
    """The order that was packed."""
    return _ORDERS.decode(packed)


def decode_answer(packed: bytes) -> Answer:
    """The answer that was packed.

    Raises:
        DataError: it is none.
    """
    try:
        return _ANSWERS.decode(packed)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError(f"a worker answered what is no answer: {error}") from error
