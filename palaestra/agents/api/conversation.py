"""A chat as messages, turn by turn, of which a context policy chooses those that are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from palaestra.agents.api.reply import Reply, ToolCall
from palaestra.agents.context import ContextPolicy, Turn

Message = dict[str, Any]

_ONE_CALL = "Not carried out: one call a turn."
_LONGEST_ID = 64


@dataclass
class Conversation:
    """The messages of one episode. The last turn is open until `answer`."""

    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    prefix: range = range(0)
    _calls: tuple[ToolCall, ...] = ()
    """Of the last answer: the next observation is what the first of them gave."""

    @classmethod
    def begin(cls, system: str) -> Conversation:
        """With a system message, or without any where it is empty."""
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        return cls(messages, prefix=range(len(messages)))

    def show(self, observation: str) -> None:
        """Open a turn with what the environment shows."""
        start = len(self.messages)
        if not self._calls:
            self.messages.append({"role": "user", "content": observation})
        for number, call in enumerate(self._calls):
            content = _ONE_CALL if number else observation
            self.messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
        end = len(self.messages)
        self.turns.append(Turn(range(start, end), range(end, end)))

    def answer(self, reply: Reply, *, calls: bool) -> None:
        """Close the turn with what the model said.

        Args:
            reply: that.
            calls: repeat its calls as such to the endpoint; where they are none that it could read, only the text.
        """
        self._calls = tuple(_named(call, len(self.messages) + n) for n, call in enumerate(reply.calls)) if calls else ()
        message: Message = {"role": "assistant", "content": reply.text}
        if self._calls:
            message["tool_calls"] = [call.message for call in self._calls]
        self.messages.append(message)
        turn = self.turns[-1]
        self.turns[-1] = Turn(turn.observation, range(turn.action.start, len(self.messages)))

    def prompt(self, policy: ContextPolicy) -> list[Message]:
        """What is sent. What a tool gave is an ordinary message where its call is left out."""
        chosen = policy.select(self.prefix, self.turns)
        called: set[str] = set()
        return [_linked(self.messages[index], called) for index in chosen]

    def before_last(self, calls: tuple[ToolCall, ...]) -> Conversation:
        """The conversation as it was before the last turn; messages are shared, as nothing changes them."""
        start = self.turns[-1].observation.start
        return Conversation(self.messages[:start], self.turns[:-1], self.prefix, calls)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Those that the next observation answers."""
        return self._calls


def _linked(message: Message, called: set[str]) -> Message:
    called.update(call["id"] for call in message.get("tool_calls", ()))
    if message["role"] == "tool" and message["tool_call_id"] not in called:
        return {"role": "user", "content": message["content"]}
    return message


def _named(call: ToolCall, number: int) -> ToolCall:
    """With an id that is one: what the endpoint gave, if that can be sent back."""
    sound = 0 < len(call.id) <= _LONGEST_ID and call.id.isascii() and call.id.isprintable()
    return call if sound else ToolCall(f"call{number:05d}", call.name, call.arguments)


def size_of(messages: Sequence[Message]) -> int:
    """Characters of all messages."""
    return sum(len(str(message)) for message in messages)
