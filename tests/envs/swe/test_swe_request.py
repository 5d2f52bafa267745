"""What an agent says, as calls of tools."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.swe.request import LONGEST, TOOLS, Request, read_request, say, schemas

EDIT = """I see it.
<edit>
src/lists.py
<<<<<<< old
    return a
=======
    return b
>>>>>>> new
</edit>"""


@pytest.mark.parametrize(
    ("action", "request_"),
    [
        ("<shell>\nls -l\n</shell>", Request("shell", {"command": "ls -l"})),
        ("<view>src/a.py</view>", Request("view", {"path": "src/a.py"})),
        ("<view>src/a.py:10-40</view>", Request("view", {"path": "src/a.py", "first": 10, "last": 40})),
        ("<view>src/a.py 10</view>", Request("view", {"path": "src/a.py", "first": 10, "last": 109})),
        ("<view></view>", Request("view", {"path": "."})),
        ("<search>def \\w+</search>", Request("search", {"pattern": "def \\w+", "path": "."})),
        ("<search>x\nsrc</search>", Request("search", {"pattern": "x", "path": "src"})),
        (EDIT, Request("edit", {"path": "src/lists.py", "blocks": [["    return a\n", "    return b\n"]]})),
        ("<apply_patch>\n--- a/x\n</apply_patch>", Request("apply_patch", {"patch": "--- a/x"})),
        ("<submit></submit>", Request("submit", {})),
        ("First:\n```bash\nmake test\n```\nthen more", Request("shell", {"command": "make test\n"})),
        ('<edit>{"path": "a", "old": "x", "new": "y"}</edit>', Request("edit", {"path": "a", "old": "x", "new": "y"})),
        ("<shell>{ echo a; }</shell>", Request("shell", {"command": "{ echo a; }"})),
    ],
)
def test_calls_as_tags(action: str, request_: Request) -> None:
    assert read_request(action) == request_
    assert read_request({"role": "assistant", "content": action}) == request_


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("shell", {"command": "ls"}, {"command": "ls"}),
        ("view", {"path": "a", "first": 3, "last": 9}, {"path": "a", "first": 3, "last": 9}),
        ("search", {"pattern": "x", "path": "src"}, {"pattern": "x", "path": "src"}),
        ("edit", {"path": "a", "old": "x", "new": ""}, {"path": "a", "old": "x", "new": ""}),
        ("apply_patch", {"patch": "--- a\n"}, {"patch": "--- a\n"}),
        ("submit", {}, {}),
    ],
)
def test_calls_in_openai_s_shape(name: str, arguments: dict[str, object], expected: dict[str, object]) -> None:
    function = {"name": name, "arguments": msgspec.json.encode(arguments).decode()}
    message = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    assert read_request(message) == Request(name, expected)


@pytest.mark.parametrize(
    "action", ["", "no call", "<shell>open", "```python\nprint()\n```", None, 7, {"content": 7}, []]
)
def test_no_call(action: object) -> None:
    assert read_request(action) is None


@pytest.mark.parametrize(
    "action",
    [
        "<shell> </shell>",
        "<edit>a.py\nno blocks</edit>",
        "<edit></edit>",
        "<search> </search>",
        "<apply_patch></apply_patch>",
    ],
)
def test_calls_that_cannot_be_read_say_what_is_wrong(action: str) -> None:
    request = read_request(action)
    assert request is not None
    assert request.problem
    assert not request.arguments


def test_a_call_without_end_is_too_long() -> None:
    request = read_request(say("shell", "a" * (LONGEST + 1)))
    assert request is not None
    assert "longer" in request.problem


@given(st.sampled_from(TOOLS), st.text(max_size=300))
def test_whatever_is_said_is_read_or_refused(name: str, text: str) -> None:
    request = read_request(say(name, text))
    assert request is None or request.name in TOOLS


def test_the_schemas_name_every_tool() -> None:
    assert [schema["function"]["name"] for schema in schemas()] == list(TOOLS)
