"""What client and server of OpenEnv say to each other over `/ws`: JSON objects with a `type`, and mostly `data`."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from palaestra.errors import DataError, EnvError

SUPPORTED = "0.3"
"""Version of openenv-core whose protocol this is."""
LARGEST_ACTION = 1 << 20
"""Characters of an action that are sent; a longer one is refused here."""


class Answer(msgspec.Struct, frozen=True):
    """One message of a server."""

    type: str
    """`observation`, `state`, `error` or `mcp`."""
    data: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True):
    """What a reset or a step gave: the `data` of a message of type `observation`."""

    observation: dict[str, Any]
    reward: float | bool | None = None
    """`None` where the environment pays nothing at this step, and always after a reset."""
    done: bool = False


_ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def answer_of(frame: str) -> Answer:
    """The message in a text frame.

    Raises:
        DataError: it is none.
    """
    try:
        return _ANSWERS.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise DataError(f"what came is no OpenEnv message: {error}; this is the protocol of {SUPPORTED}") from None


def outcome_of(answer: Answer) -> Outcome:
    """The outcome of a reset or step.

    Raises:
        DataError: it is another message, or of another shape.
        EnvError: its reward is no finite number.
    """
    if answer.type != "observation":
        raise DataError(f"a message of type {answer.type[:40]!r} came where an observation was due")
    try:
        outcome = msgspec.convert(answer.data, Outcome)
    except msgspec.ValidationError as error:
        raise DataError(f"not an OpenEnv observation: {error}; this is the protocol of {SUPPORTED}") from None
    if outcome.reward is not None and not math.isfinite(outcome.reward):
        raise EnvError(f"the server gave the reward {outcome.reward}")
    return outcome


def sent(type: str, data: dict[str, Any] | None = None) -> str:
    """A message as a text frame.

    Raises:
        EnvError: `data` holds what JSON cannot.
    """
    message: dict[str, Any] = {"type": type} if data is None else {"type": type, "data": data}
    try:
        return msgspec.json.encode(message).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EnvError(f"cannot send this to an OpenEnv server: {error}; use JSON values") from error
