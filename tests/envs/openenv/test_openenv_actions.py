"""Text, messages and tool calls as actions of a schema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.openenv.actions import ActionForm, action_of, described, form_of, tools_of
from palaestra.errors import DataError

STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("properties", "required", "field"),
    [
        ({"message": STRING}, ["message"], "message"),
        ({"message": STRING, "metadata": {"type": "object"}}, [], "message"),
        ({"code": STRING, "timeout": {"type": "integer"}}, ["code"], "code"),
        ({"code": {"anyOf": [STRING, {"type": "null"}]}}, [], "code"),
        ({"a": STRING, "b": STRING}, ["a"], "a"),
        ({"a": STRING, "b": STRING}, [], ""),
        ({"a": STRING, "n": {"type": "integer"}}, ["a", "n"], ""),
        ({"n": {"type": "integer"}}, ["n"], ""),
    ],
)
def test_where_plain_text_goes(properties: Any, required: list[str], field: str) -> None:
    assert form_of({"properties": properties, "required": required}).text_field == field


def test_json_objects_are_actions_where_they_fit_and_text_where_they_do_not() -> None:
    form = form_of({"properties": {"code": STRING, "n": {"type": "integer"}}, "required": ["code"]})
    assert action_of('{"code": "x", "n": 2}', form) == {"code": "x", "n": 2}
    assert action_of('```json\n{"code": "x"}\n```', form) == {"code": "x"}
    assert action_of('{"other": "x"}', form) == {"code": '{"other": "x"}'}
    assert action_of('{"n": 2}', form) == {"code": '{"n": 2}'}
    assert action_of({"code": "x"}, form) == {"code": "x"}
    assert action_of({"role": "assistant", "content": "hello"}, form) == {"code": "hello"}


def test_tool_calls() -> None:
    schema = {"type": "object", "properties": {"query": STRING}}
    tools = tools_of({"tools": [{"name": "search", "input_schema": schema}, {"name": "stop"}]})
    form = ActionForm(tools=tools)
    assert action_of("so <search>Iliad</search>", form) == _call("search", {"query": "Iliad"})
    assert action_of('<search>{"query": "a"}</search>', form) == _call("search", {"query": "a"})
    assert action_of("<stop></stop>", form) == _call("stop", {})
    asked = {"tool_calls": [{"function": {"name": "search", "arguments": '{"query": "a"}'}}]}
    assert action_of(asked, form) == _call("search", {"query": "a"})
    assert action_of("fly", form) is None
    assert described(tools[0])["function"]["parameters"] == schema
    for wrong in ({}, {"tools": 5}, {"tools": [{"name": 5}]}):
        with pytest.raises(DataError, match="no tools"):
            tools_of(wrong)


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "call_tool", "tool_name": name, "arguments": arguments}


JSON = st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))


@given(JSON)
def test_any_schema_is_a_form_or_an_error(schema: Any) -> None:
    try:
        form_of(schema)
    except DataError:
        return


@given(JSON)
def test_any_action_has_the_form_or_is_none(action: Any) -> None:
    form = form_of({"properties": {"code": STRING, "n": {"type": "integer"}}, "required": ["code"]})
    found = action_of(action, form)
    assert found is None or set(found) <= {"code", "n", "metadata", "type"}
