"""Action formats of chats: what is asked for beside the conversation, and what a reply means as an action.

A reply that means nothing is data, not an error: it is sent to the environment as it is, which refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from palaestra.agents.actions import ParsedAction
from palaestra.agents.api.reply import Reply, ToolCall
from palaestra.envs.calls import find_call
from palaestra.envs.core import Info
from palaestra.errors import EnvError

_THOUGHT = "</think>"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a turn is asked with."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of the request."""
    hint: str = ""
    """Follows the observation."""
    choices: Sequence[str] = ()
    """The commands or tools that there are."""


class ReplyFormat(Protocol):
    """Between replies and actions."""

    @property
    def name(self) -> str:
        """As recipes and results call it."""

    @property
    def system(self) -> str:
        """System message that explains it; empty for none."""

    @property
    def constrained(self) -> str:
        """What, other than the model, decided about its tokens; empty if nothing did."""

    def offer(self, info: Info, tools: Sequence[Mapping[str, Any]]) -> Offer:
        """What to ask this turn with."""

    def read(self, reply: Reply, offer: Offer) -> ParsedAction:
        """The action that a reply means."""


@dataclass(frozen=True, slots=True)
class TextReply:
    """The first line."""

    name: str = "text"
    system: str = (
        "You act in a text environment. Each message shows you what happened. Answer with the next command alone: one "
        "line, no explanation, no quotes."
    )
    constrained: str = ""

    def offer(self, info: Info, tools: Sequence[Mapping[str, Any]]) -> Offer:
        """Nothing more."""
        return Offer()

    def read(self, reply: Reply, offer: Offer) -> ParsedAction:
        """The first line behind what was thought aloud, without blanks around it."""
        lines = _said(reply).splitlines()
        return ParsedAction(lines[0].strip()) if lines else ParsedAction("", _empty(reply))


@dataclass(frozen=True, slots=True)
class MessageReply:
    """All of it: for environments that read reasoning, tags of tool calls, code."""

    name: str = "message"
    system: str = ""
    constrained: str = ""

    def offer(self, info: Info, tools: Sequence[Mapping[str, Any]]) -> Offer:
        """Nothing more."""
        return Offer()

    def read(self, reply: Reply, offer: Offer) -> ParsedAction:
        """The text, without blanks around it."""
        text = reply.text.strip()
        return ParsedAction(text, "" if text else _empty(reply))


@dataclass(frozen=True, slots=True)
class ChoiceReply:
    """One of the admissible commands, which every message lists, and which are a JSON schema for endpoints that can."""

    name: str = "choice"
    system: str = (
        "You act in a text environment. Each message shows you what happened, and the commands that are possible now. "
        'Answer with one of them, word for word, as JSON: {"command": "..."}.'
    )
    constrained: str = "the endpoint held its tokens to a schema, which a learner cannot do alike"

    def offer(self, info: Info, tools: Sequence[Mapping[str, Any]]) -> Offer:
        """The commands, as text and as a schema.

        Raises:
            EnvError: the environment gives none.
        """
        commands = list(dict.fromkeys(info.get("admissible_commands") or ()))
        if not commands:
            raise EnvError("the environment gives no admissible_commands to choose from; use the action format text")
        schema = {
            "type": "object",
            "properties": {"command": {"type": "string", "enum": commands}},
            "required": ["command"],
            "additionalProperties": False,
        }
        wanted = {"type": "json_schema", "json_schema": {"name": "command", "strict": True, "schema": schema}}
        listed = "\n".join(f"- {command}" for command in commands)
        return Offer({"response_format": wanted}, f"\n\nPossible commands:\n{listed}", commands)

    def read(self, reply: Reply, offer: Offer) -> ParsedAction:
        """The command that the JSON names, or that the first line is."""
        text = _said(reply)
        said = _command(text) or text.partition("\n")[0].strip(" -`\"'")
        by_form = {_plain(command): command for command in reversed(offer.choices)}
        if (command := by_form.get(_plain(said))) is not None:
            return ParsedAction(command)
        return ParsedAction(said, "the reply is none of the admissible commands" if text else _empty(reply))


@dataclass(frozen=True, slots=True)
class ToolReply:
    """A call of one of the environment's tools; it becomes the tag that environments read, `<name>argument</name>`."""

    name: str = "tool"
    system: str = "You solve a task with tools. Call one tool a turn; what it gave is shown to you before the next."
    constrained: str = ""

    def offer(self, info: Info, tools: Sequence[Mapping[str, Any]]) -> Offer:
        """The tools as functions.

        Raises:
            EnvError: the environment has none.
        """
        if not tools:
            raise EnvError("the environment offers no tools; use the action format text or message")
        names = [str(tool.get("function", {}).get("name", "")) for tool in tools]
        return Offer({"tools": [dict(tool) for tool in tools], "tool_choice": "auto"}, choices=names)

    def read(self, reply: Reply, offer: Offer) -> ParsedAction:
        """The first call as a tag, behind what was said before it; without a call, all that was said."""
        if reply.calls:
            return ParsedAction(_tagged(reply.calls[0], reply.text, offer.choices))
        text = reply.text.strip()
        return ParsedAction(text, "" if text else _empty(reply))


FORMATS: Mapping[str, Callable[[], ReplyFormat]] = {
    "text": TextReply,
    "choice": ChoiceReply,
    "message": MessageReply,
    "tool": ToolReply,
}
"""By name, as `--action` calls them."""


def known(reply: Reply, offer: Offer) -> bool:
    """Whether all calls of the reply are of tools that were offered, with arguments that can be repeated."""
    return all(call.name in offer.choices and call.is_sound for call in reply.calls)


def _said(reply: Reply) -> str:
    return reply.text.rpartition(_THOUGHT)[2].strip()


def _empty(reply: Reply) -> str:
    return "the reply was cut off before it said anything" if reply.cut_off else "the reply is empty"


def _command(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=_Command).command
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


class _Command(msgspec.Struct):
    command: str


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _tagged(call: ToolCall, said: str, names: Sequence[str]) -> str:
    """The call as text from which `find_call` reads the same."""
    found = find_call({"tool_calls": [call.message]}, [call.name])
    argument = found.argument if found is not None else call.arguments
    if f"</{call.name}>" in argument:
        argument = call.arguments.replace("</", "<\\/")  # the same string to whoever reads JSON
    before = said.strip()
    if any(re.search(f"<{re.escape(name)}>", before) for name in names):
        before = ""  # or that would be the call
    return f"{before}\n<{call.name}>{argument}</{call.name}>".lstrip()
