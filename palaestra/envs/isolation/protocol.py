"""What is said to an environment that runs elsewhere, and what it answers: msgpack, with a limit on size.

Nothing is ever unpickled. Both sides trust neither the shape nor the size of what arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from palaestra.envs.registry import EnvSpec
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError

MAX_MESSAGE_BYTES = 64 * 2**20
"""Largest message either side accepts."""


class Make(msgspec.Struct, frozen=True, tag=True):
    """Make the environment, wrappers included. Answer: `Made`."""

    spec: EnvSpec


class ResetCall(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """`Env.reset`. Answer: `ResetDone`."""

    seed: int | None = None
    task: Task | None = None
    options: dict[str, Any] | None = None


class StepCall(msgspec.Struct, frozen=True, tag=True):
    """`Env.step`. Answer: `StepDone`."""

    action: Any


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Call a method without arguments. Answer: `Value`."""

    method: str
    """`oracle`, `verify`, `render` or `close`."""


Call = Make | ResetCall | StepCall | Ask


class Made(msgspec.Struct, frozen=True, tag=True):
    """The environment is there."""

    capabilities: tuple[str, ...]
    """Which of `oracle`, `verify`, `tools`, `render` it has."""


class ResetDone(msgspec.Struct, frozen=True, tag=True):
    """The episode has begun."""

    observation: Any
    info: dict[str, Any]
    tools: list[dict[str, Any]] | None = None


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """One step is taken."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class Value(msgspec.Struct, frozen=True, tag=True):
    """What a method returned."""

    value: Any = None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The environment raised."""

    error: str
    """Name of the exception's class."""
    message: str
    where: str = ""
    """`file:line` of the innermost frame."""


Result = Made | ResetDone | StepDone | Value | Failed


def encode(message: Any) -> bytes:
    """A message as msgpack. NumPy numbers become plain ones; arrays, tuples and sets become lists.

    Raises:
        EnvError: it holds what no message can carry, or is too large.
    """
    return _encoded(msgspec.msgpack.encode, message)


def encode_json(message: Any) -> str:
    """A message as JSON, with NumPy's values as in `encode`; what is no number becomes `null`.

    Raises:
        EnvError: it holds what no message can carry, or is too large.
    """
    return _encoded(msgspec.json.encode, message).decode()


def _encoded(encoder: Callable[..., bytes], message: Any) -> bytes:
    try:
        packed = encoder(message, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EnvError(f"cannot send this to or from an isolated environment: {error}; use JSON values") from error
    if len(packed) > MAX_MESSAGE_BYTES:
        raise EnvError(f"a message of {len(packed):,} bytes is over the limit of {MAX_MESSAGE_BYTES:,}")
    return packed


_CALLS: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_RESULTS: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)


def decode_call(packed: bytes | memoryview) -> Call:
    """The call that `encode` packed.

    Raises:
        DataError: it is none.
    """
    try:
        return _CALLS.decode(packed)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError(f"not a call to an environment: {error}") from error


def decode_result(packed: bytes | memoryview) -> Result:
    """The result that `encode` packed.

    Raises:
        DataError: it is none.
    """
    try:
        return _RESULTS.decode(packed)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError(f"an environment answered what is no answer: {error}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays, without importing it
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, range | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")
