"""A tool of one argument in OpenAI's shape."""

from __future__ import annotations

from typing import Any


def schema(name: str, description: str, argument: str, meaning: str) -> dict[str, Any]:
    """The description that models are given."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string", "description": meaning}},
                "required": [argument],
            },
        },
    }
