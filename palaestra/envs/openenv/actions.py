"""Between what an agent says and an action of an OpenEnv server, whose JSON schema the server publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from palaestra.envs.calls import find_call
from palaestra.envs.openenv.messages import LARGEST_ACTION
from palaestra.errors import DataError

OF_TOOLS = ("Action", "CallToolAction", "ListToolsAction")
"""Titles of the action schemas of servers whose actions are tool calls."""


@dataclass(frozen=True, slots=True)
class ActionForm:
    """What the actions of a server look like."""

    title: str = ""
    fields: tuple[str, ...] = ()
    """What an action may have, without `metadata`."""
    required: tuple[str, ...] = ()
    text_field: str = ""
    """Where plain text goes; empty where only a JSON object will do."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What may be called: `name`, `description`, `input_schema`."""

    @property
    def wanted(self) -> str:
        """What to say to an agent whose action has no such form."""
        if self.tools:
            return f"call one of the tools: {', '.join(map(_name, self.tools))}"
        return f"the action has to be a JSON object with {', '.join(self.required or self.fields) or 'fields'}"


def form_of(schema: Any, text_field: str = "") -> ActionForm:
    """The form of the actions that a JSON schema describes.

    Args:
        schema: of the action, as `GET /schema` gives it.
        text_field: where plain text goes; empty for the only required field, or the only text field.

    Raises:
        DataError: it is no schema of an object, or has no field `text_field`.
    """
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not all(isinstance(name, str) for name in properties):
        raise DataError("the server's action schema describes no object with properties")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise DataError("the server's action schema names no required fields")
    fields = tuple(name for name in properties if name not in ("metadata", "type"))
    if text_field and text_field not in fields:
        raise DataError(f"the server's actions have no field {text_field!r}; they have {', '.join(fields) or 'none'}")
    title = schema.get("title")
    return ActionForm(
        title if isinstance(title, str) else "",
        fields,
        tuple(name for name in required if name in fields),
        text_field or _text_field(properties, fields, required),
    )


def _text_field(properties: Mapping[str, Any], fields: Sequence[str], required: Sequence[str]) -> str:
    texts = [name for name in fields if isinstance(properties[name], dict) and _may_be_text(properties[name])]
    first = [name for name in texts if name in required]
    others = [name for name in required if name in fields and name not in texts]
    candidates = first or texts
    return candidates[0] if len(candidates) == 1 and not others else ""


def _may_be_text(schema: Mapping[str, Any]) -> bool:
    options = schema.get("anyOf")
    kinds = [schema, *options] if isinstance(options, list) else [schema]
    return any(isinstance(kind, Mapping) and kind.get("type") == "string" for kind in kinds)


def action_of(action: object, form: ActionForm) -> dict[str, Any] | None:
    """The server's action in what an agent says; `None` where there is none.

    Args:
        action: text (a JSON object, or what goes into the text field), a chat message, or the server's action itself.
        form: of the server's actions.
    """
    if form.tools:
        return _call(action, form.tools)
    if isinstance(action, Mapping):
        if "role" not in action or "role" in form.fields:
            return dict(action) if set(action) <= {*form.fields, "metadata", "type"} else None
        action = action.get("content")
    if not isinstance(action, str) or len(action) > LARGEST_ACTION:
        return None
    text = action.encode("utf-8", "replace").decode()
    found = _json_object(text)
    if found is not None and set(form.required) <= set(found) <= {*form.fields, "metadata", "type"}:
        return found
    return {form.text_field: text} if form.text_field else None


def _json_object(text: str) -> dict[str, Any] | None:
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.partition("\n")[2].removesuffix("```").strip()
    if not text.startswith("{"):
        return None
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return found if isinstance(found, dict) else None


def _call(action: object, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    found = find_call(action, [_name(tool) for tool in tools])
    if found is None or len(found.argument) > LARGEST_ACTION:
        return None
    schema = next(tool for tool in tools if _name(tool) == found.name).get("input_schema")
    only = _only_argument(schema)
    given = _json_object(found.argument)
    if given is None or (only and only not in given):
        given = {only: found.argument.encode("utf-8", "replace").decode()} if only else {}
    return {"type": "call_tool", "tool_name": found.name, "arguments": given}


def _only_argument(schema: Any) -> str:
    """The argument that a text between tags stands for."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    names = list(properties) if isinstance(properties, Mapping) else []
    return str(names[0]) if len(names) == 1 else ""


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("name"))


def tools_of(observation: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tools that a server lists.

    Raises:
        DataError: it lists none.
    """
    listed = observation.get("tools")
    if not isinstance(listed, list) or not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in listed):
        raise DataError("the server's actions are tool calls, and it lists no tools")
    return tuple(listed)


def described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in OpenAI's shape."""
    schema = tool.get("input_schema") or tool.get("inputSchema") or {"type": "object", "properties": {}}
    function = {"name": _name(tool), "description": str(tool.get("description") or ""), "parameters": schema}
    return {"type": "function", "function": function}
