"""What an agent asks for, in a message or in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from palaestra.envs.calls import find_call

TOOLS = ("search", "read", "answer")
LONGEST = 2000
"""Characters of an argument that count."""
_ARGUMENTS = {"search": "query", "read": "title", "answer": "answer"}
_HELP = {
    "search": ("Search the pages for words; shows titles and snippets of the best.", "words to look for"),
    "read": ("Read a page.", "its title or id; of a long page also the part: Title, part 2"),
    "answer": ("Give the final answer, which ends the episode.", "the answer, as short as can be"),
}


class Request(NamedTuple):
    """One call."""

    name: str
    """One of `TOOLS`."""
    argument: str
    """At most one character longer than `LONGEST`."""


def read_request(action: object, style: str) -> Request | None:
    """The call in `action`, whatever that is; `None` where there is none.

    Args:
        action: text, or a chat message as a mapping.
        style: `text` looks at the first line of a text only; everything else is looked through for tags and tool calls.
    """
    if style == "text" and isinstance(action, str):
        name, _, rest = action.strip().partition("\n")[0].partition(" ")
        return Request(name.lower(), _cut(rest.strip())) if name.lower() in TOOLS else None
    call = find_call(action, TOOLS)
    return None if call is None else Request(call.name, _cut(_plain(call.name, call.argument)))


def _cut(argument: str) -> str:
    """The argument with its brackets, and one character more than counts where it is too long."""
    return unescaped(argument[: 4 * (LONGEST + 1)])[: LONGEST + 1]


def _plain(name: str, argument: str) -> str:
    """The argument as text, where several came as JSON."""
    if argument.startswith("{"):
        try:
            given = msgspec.json.decode(argument[: 8 * LONGEST])
        except (msgspec.DecodeError, ValueError, RecursionError):
            given = {}
        if isinstance(given, dict) and isinstance(main := given.get(_ARGUMENTS[name]), str):
            part = given.get("part")
            argument = f"{main}, part {part}" if name == "read" and isinstance(part, int) and part > 1 else main
    return argument


def say(name: str, argument: str, style: str) -> str:
    """The action that makes a call."""
    line = " ".join(argument.split())
    return f"{name} {line}" if style == "text" else f"<{name}>{escaped(line)}</{name}>"


def escaped(text: str) -> str:
    """`text` without any bracket that could open or close a tag."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def unescaped(text: str) -> str:
    """What `escaped` was given."""
    return text.replace("&lt;", "<").replace("&gt;", ">")


def schemas() -> Sequence[Mapping[str, Any]]:
    """The tools in OpenAI's shape."""
    return [_schema(name) for name in TOOLS]


def _schema(name: str) -> dict[str, Any]:
    what, argument = _HELP[name]
    properties: dict[str, Any] = {_ARGUMENTS[name]: {"type": "string", "description": argument}}
    if name == "read":
        properties["part"] = {"type": "integer", "minimum": 1, "description": "of a long page"}
    parameters = {"type": "object", "properties": properties, "required": [_ARGUMENTS[name]]}
    return {"type": "function", "function": {"name": name, "description": what, "parameters": parameters}}
