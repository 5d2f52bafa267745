"""What our server says in OpenEnv's terms: observations, schemas, descriptions, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from palaestra.envs.isolation.protocol import ResetDone, StepDone, encode_json
from palaestra.envs.registry import EnvSpec

ACTION = {
    "title": "PalaestraAction",
    "type": "object",
    "additionalProperties": False,
    "required": ["message"],
    "properties": {
        "message": {"type": "string", "title": "Message", "description": "What the agent says or does, as text."},
        "tool_calls": {
            "anyOf": [{"type": "array", "items": {"type": "object"}}, {"type": "null"}],
            "default": None,
            "description": "Tool calls in OpenAI's shape, where the environment has tools.",
        },
        "metadata": {"type": "object", "additionalProperties": True, "description": "Ignored."},
    },
}
ACTION_FIELDS = ("message", "tool_calls", "metadata")
OBSERVATION = {
    "title": "PalaestraObservation",
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "What the agent sees."},
        "admissible_commands": {
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "description": "Every action that would change or reveal something now, where the environment lists them.",
        },
        "success": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "invalid": {"type": "boolean", "description": "Whether the last action was refused."},
        "truncated": {"type": "boolean", "description": "Whether a limit outside the task ended the episode."},
        "info": {"type": "object", "additionalProperties": True},
        "done": {"type": "boolean", "default": False},
        "reward": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "metadata": {"type": "object", "additionalProperties": True},
    },
}
STATE = {
    "title": "State",
    "type": "object",
    "additionalProperties": True,
    "properties": {
        "episode_id": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "step_count": {"type": "integer", "minimum": 0, "default": 0},
    },
}
_PATHS = {
    "/reset": "post",
    "/step": "post",
    "/mcp": "post",
    "/state": "get",
    "/schema": "get",
    "/metadata": "get",
    "/health": "get",
}


def observation(done: ResetDone | StepDone) -> dict[str, Any]:
    """The data of a message of type `observation`."""
    info = dict(done.info)
    text = done.observation if isinstance(done.observation, str) else encode_json(done.observation)
    step = done if isinstance(done, StepDone) else None
    seen = {
        "text": text,
        "admissible_commands": info.pop("admissible_commands", None),
        "success": info.pop("success", None),
        "invalid": bool(info.pop("invalid", False)),
        "truncated": step is not None and step.truncated,
        "info": info,
    }
    over = step is not None and (step.terminated or step.truncated)
    return {"observation": seen, "reward": step.reward if step else None, "done": over}


def called(name: str, done: StepDone) -> dict[str, Any]:
    """The same for a tool call, as OpenEnv's MCP clients read it."""
    told = observation(done)
    failed = done.info.get("invalid") or (done.info.get("tool") or {}).get("ok") is False
    error = {"error_type": "execution_error", "message": told["observation"]["text"]} if failed else None
    told["observation"] = {"tool_name": name, "result": told["observation"]["text"], "error": error}
    return told


def listed(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Tools as MCP has them, of tools as OpenAI has them."""
    functions = [tool.get("function") or tool for tool in tools or ()]
    return [
        {
            "name": str(function.get("name")),
            "description": str(function.get("description") or ""),
            "input_schema": dict(function.get("parameters") or {}),
        }
        for function in functions
    ]


def tool_message(name: str, arguments: Any) -> dict[str, Any]:
    """A call as the chat message that our environments read."""
    call = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def action_in(data: Any) -> Any:
    """What an action stands for: text, or a chat message with tool calls. `None` where it is no action of ours."""
    if not isinstance(data, Mapping) or not set(data) <= set(ACTION_FIELDS):
        return None
    text, calls = data.get("message"), data.get("tool_calls")
    if not isinstance(text, str) or not (calls is None or isinstance(calls, list)):
        return None
    return {"role": "assistant", "content": text, "tool_calls": calls} if calls else text


def error(code: str, message: str, **more: Any) -> str:
    """A message of type `error`."""
    return encode_json({"type": "error", "data": {"message": message, "code": code, **more}})


def metadata(spec: EnvSpec) -> dict[str, Any]:
    """The answer to `GET /metadata`."""
    version = spec.id.rpartition("-v")[2]
    text = f"{spec.id}, an environment of Palaestra; an action is text in the field message"
    return {"name": spec.id, "description": text, "version": version}


def openapi() -> dict[str, Any]:
    """The answer to `GET /openapi.json`: which endpoints there are."""
    ok = {"200": {"description": "Done"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "OpenEnv Environment HTTP API", "version": "1.0.0"},
        "paths": {path: {method: {"responses": ok}} for path, method in _PATHS.items()},
        "components": {"schemas": {"Action": ACTION, "Observation": OBSERVATION, "State": STATE}},
    }
