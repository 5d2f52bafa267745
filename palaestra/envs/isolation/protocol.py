"""What is said to an environment that runs elsewhere, and what it answers: msgpack, with a limit on size.

Nothing is ever unpickled. Both sides trust neither the shape nor the size of what arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from palaestra.envs.registry import EnvSpec
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError

T = TypeVar("T")
M = TypeVar("M")

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


def decoded(decode: Callable[[T], M], packed: T, otherwise: str) -> M:
    """What `decode` makes of a message that came from outside.

    Raises:
        DataError: nothing; it begins with `otherwise`.
    """
    try:
        return decode(packed)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise DataError(f"{otherwise}: {error}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays, without importing it
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, range | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")
