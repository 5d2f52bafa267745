"""What an endpoint answered in one turn of a chat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from palaestra.agents.engines.openai.answers import ChatAnswer, checked_logprobs
from palaestra.errors import EngineError

PER_TOKEN = 256
"""Characters that a token may stand for. More is no answer of a model that was held to so many tokens."""
SHORTEST_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called."""

    id: str
    name: str
    arguments: str
    """JSON of an object, or whatever the model wrote instead."""

    @property
    def is_sound(self) -> bool:
        """Whether the arguments are an object."""
        try:
            return isinstance(msgspec.json.decode(self.arguments), dict)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False

    @property
    def message(self) -> dict[str, Any]:
        """As a later request repeats it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class Sampled:
    """The tokens of one answer."""

    prompt: list[int]
    """Ids of the prompt as the endpoint rendered it."""
    ids: list[int]
    logprobs: list[float] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, within bounds."""

    text: str
    calls: tuple[ToolCall, ...]
    cut_off: bool
    """Whether the most tokens ended it."""
    sampled: Sampled | None
    """Where the endpoint tells token ids."""


def read_reply(answer: ChatAnswer, *, max_tokens: int, host: str, hide: Callable[[str], str]) -> Reply:
    """The reply in an answer.

    Args:
        answer: as it came.
        max_tokens: that were asked for.
        host: for errors.
        hide: takes the API key out of a text that repeats it.

    Raises:
        EngineError: it is longer than it may be, or its parts do not fit together.
    """
    choice = answer.choices[0]
    message = choice.message
    text = hide(message.content or message.refusal or "")
    calls = tuple(
        ToolCall(hide(call.id), hide(call.function.name), hide(call.function.arguments or "{}"))
        for call in message.tool_calls or ()
    )
    size = len(text) + sum(len(call.arguments) + len(call.name) + len(call.id) for call in calls)
    if size > max(SHORTEST_LIMIT, PER_TOKEN * max_tokens):
        raise EngineError(f"{host} answers with {size:,} characters where {max_tokens} tokens were asked for")
    return Reply(text, calls, choice.finish_reason == "length", _sampled(answer, max_tokens, host))


def _sampled(answer: ChatAnswer, max_tokens: int, host: str) -> Sampled | None:
    ids, told = answer.sampled
    if not ids or not answer.prompt_token_ids:
        return None
    if len(ids) > max_tokens:
        raise EngineError(f"{host} answers with {len(ids)} tokens where {max_tokens} were asked for")
    return Sampled(answer.prompt_token_ids, ids, checked_logprobs(told, len(ids), host))
