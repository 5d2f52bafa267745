"""What an agent asks for: a call of one of the tools, as a tag, as a tool call, or as a block of shell code.

<shell>pytest -q tests/test_lists.py</shell>
<view>src/lists.py:10-40</view>
<edit>
src/lists.py
<<<<<<< old
return a
=======
return b
>>>>>>> new
</edit>
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from palaestra.envs.calls import find_call

LONGEST = 1_000_000
"""Characters of an argument that are read."""
_FENCE = re.compile(r"^```(?:bash|sh|shell)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_RANGE = re.compile(r"(?P<path>.*\S)(?::|\s+)(?P<first>\d{1,9})(?:\s*-\s*(?P<last>\d{1,9}))?")
_BLOCK = re.compile(r"^<{5,}[^\n]*\n(?P<old>.*?)^={5,}[ \t]*\n(?P<new>.*?)^>{5,}[^\n]*$", re.MULTILINE | re.DOTALL)


class Request(NamedTuple):
    """One call."""

    name: str
    """One of `TOOLS`."""
    arguments: dict[str, Any]
    """As the tool wants them; empty where `problem` says why there are none."""
    problem: str = ""
    """What is wrong with the call, for the agent; or empty."""


class _Tool(NamedTuple):
    what: str
    """For the agent."""
    properties: Mapping[str, Mapping[str, Any]]
    required: Sequence[str]
    read: Callable[[str], dict[str, Any] | str]
    """Arguments from the text of a tag, or what is wrong with it."""


def read_request(action: object) -> Request | None:
    """The first call in `action`, text or a chat message; `None` where there is none."""
    call = find_call(action, TOOLS)
    if call is None:
        text = action.get("content") if isinstance(action, Mapping) else action
        block = _FENCE.search(text[: 4 * LONGEST]) if isinstance(text, str) else None
        return None if block is None else Request("shell", {"command": block[1]})
    if len(call.argument) > LONGEST:
        return Request(call.name, {}, f"it is longer than {LONGEST} characters; do it in several calls")
    given = _given(call.name, call.argument)
    if isinstance(given, str):
        return Request(call.name, {}, given)
    return Request(call.name, given)


def say(name: str, argument: str) -> str:
    """The action that makes a call by a tag."""
    return f"<{name}>{argument}</{name}>"


def schemas() -> list[dict[str, Any]]:
    """The tools in OpenAI's shape."""
    return [_schema(name, tool) for name, tool in _TOOLS.items()]


def usage() -> str:
    """How each is called by a tag, a line each."""
    return "\n".join(f"- {line}" for line in _USAGE)


def _given(name: str, argument: str) -> dict[str, Any] | str:
    tool = _TOOLS[name]
    if argument.startswith("{") and (named := _named(argument, tool)) is not None:
        return named
    return tool.read(argument)


def _named(argument: str, tool: _Tool) -> dict[str, Any] | None:
    """Arguments by name, where the text is such an object and not, for example, shell code in braces."""
    try:
        given = msgspec.json.decode(argument)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or not set(given) <= set(tool.properties) or not set(tool.required) <= set(given):
        return None
    for key, value in given.items():
        wanted = int if tool.properties[key]["type"] == "integer" else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            return None
    return given


def _shell(text: str) -> dict[str, Any] | str:
    return {"command": text} if text else "there is no command in it"


def _view(text: str) -> dict[str, Any] | str:
    line = text.partition("\n")[0].strip() or "."
    if (match := _RANGE.fullmatch(line)) is None:
        return {"path": line}
    first = int(match["first"])
    return {"path": match["path"], "first": first, "last": int(match["last"]) if match["last"] else first + 99}


def _search(text: str) -> dict[str, Any] | str:
    pattern, _, path = text.partition("\n")
    if not pattern.strip():
        return "there is nothing to search for in it"
    return {"pattern": pattern.strip(), "path": path.strip() or "."}


def _edit(text: str) -> dict[str, Any] | str:
    path, _, rest = text.partition("\n")
    blocks = [[match["old"], match["new"]] for match in _BLOCK.finditer(rest + "\n")]
    if not path.strip() or not blocks:
        return "write the path on the first line, then <<<<<<< old, the old lines, =======, the new lines, >>>>>>> new"
    return {"path": path.strip(), "blocks": blocks}


def _apply(text: str) -> dict[str, Any] | str:
    return {"patch": text} if text else "there is no diff in it"


_TEXT = {"type": "string"}
_TOOLS: Mapping[str, _Tool] = {
    "shell": _Tool(
        "Run a script in a shell that stays: folder and variables are kept. Shows its output and exit code.",
        {"command": {**_TEXT, "description": "for bash"}},
        ("command",),
        _shell,
    ),
    "view": _Tool(
        "Show a file with line numbers, or what is in a folder.",
        {
            "path": {**_TEXT, "description": "relative to the repository"},
            "first": {"type": "integer", "minimum": 1, "description": "line to begin with"},
            "last": {"type": "integer", "minimum": 1, "description": "line to end with"},
        },
        ("path",),
        _view,
    ),
    "search": _Tool(
        "Find files by name and lines by content.",
        {
            "pattern": {**_TEXT, "description": "regular expression"},
            "path": {**_TEXT, "description": "file or folder to search; the repository where it is left out"},
        },
        ("pattern",),
        _search,
    ),
    "edit": _Tool(
        "Replace text in a file. The old text has to occur exactly once. An empty old text makes a new file.",
        {
            "path": {**_TEXT, "description": "relative to the repository"},
            "old": {**_TEXT, "description": "text to be replaced, blanks and line breaks as they are"},
            "new": {**_TEXT, "description": "text to stand there instead"},
        },
        ("path", "old", "new"),
        _edit,
    ),
    "apply_patch": _Tool(
        "Apply a unified diff, all of it or nothing.",
        {"patch": {**_TEXT, "description": "as of git diff: paths after a/ and b/, relative to the repository"}},
        ("patch",),
        _apply,
    ),
    "submit": _Tool("Hand the work in, which ends the task.", {}, (), lambda _: {}),
}
TOOLS = tuple(_TOOLS)
_USAGE = (
    "<shell>script</shell> runs a script in bash; folder and variables stay from call to call",
    "<view>path</view> or <view>path:10-40</view> shows a file with line numbers, or a folder",
    "<search>regular expression</search>, with a path on a second line if you like, finds files and lines",
    "<edit>path, then lines <<<<<<< old, the old text, =======, the new text, >>>>>>> new</edit> replaces text that "
    "occurs exactly once; an empty old text makes a new file",
    "<apply_patch>unified diff</apply_patch> applies it, all or nothing",
    "<submit></submit> hands your work in and ends the task",
)


def _schema(name: str, tool: _Tool) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(tool.properties), "required": list(tool.required)}
    return {"type": "function", "function": {"name": name, "description": tool.what, "parameters": parameters}}
