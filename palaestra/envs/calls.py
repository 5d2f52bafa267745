"""Tool calls in what a model says: a tag with the argument inside, or OpenAI's tool-call shape.

    Let me look. <search>who wrote the Iliad</search>
    {"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": "{\"query\": \"...\"}"}}]}

Tags are what Search-R1, ARPO and AEPO train with. Nothing here raises for what a model says: nonsense is `None`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

LONGEST = 1 << 20
"""Characters of a message that are looked at."""


class Call(NamedTuple):
    """One call."""

    name: str
    argument: str
    """The text between the tags; of a JSON call, its only argument as text, or all of them as JSON."""
    before: str
    """What was said before it."""


def find_call(action: object, names: Collection[str]) -> Call | None:
    """The first complete call of one of `names`; what follows it does not count. `None` where there is none.

    Args:
        action: text, or a chat message as a mapping.
        names: of the tools.
    """
    if isinstance(action, Mapping):
        return _structured(action, names) or find_call(action.get("content"), names)
    if not isinstance(action, str) or not names:
        return None
    tags = "|".join(map(re.escape, sorted(names)))
    opening = re.compile(f"<({tags})>")
    text, unclosed = action[:LONGEST], set[str]()
    for opened in opening.finditer(text):
        if opened[1] in unclosed:
            continue
        end = text.find(f"</{opened[1]}>", opened.end())
        if end >= 0:
            return Call(opened[1], text[opened.end() : end].strip(), text[: opened.start()])
        unclosed.add(opened[1])  # not searched for again, or a megabyte of tags would take minutes
    return None


def _structured(message: Mapping[str, Any], names: Collection[str]) -> Call | None:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and function.get("name") in names:
            said = message.get("content")
            return Call(function["name"], _argument(function.get("arguments")), said if isinstance(said, str) else "")
    return None


def _argument(given: object) -> str:
    text = given if isinstance(given, str) else _json(given)
    try:
        values = msgspec.json.decode(text[:LONGEST])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text
    if isinstance(values, dict) and len(values) == 1:
        (value,) = values.values()
        return value if isinstance(value, str) else _json(value)
    return text


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return ""
