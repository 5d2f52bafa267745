from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.calls import LONGEST, Call, find_call

NAMES = ("search", "python")


def test_the_first_complete_call_counts() -> None:
    said = "Hm. <search>unclosed <python>\nprint(1)\n</python> and <python>2</python>"
    assert find_call(said, NAMES) == Call("python", "print(1)", "Hm. <search>unclosed ")
    assert find_call("<search>Iliad</search>", NAMES) == Call("search", "Iliad", "")


def test_what_is_no_call_is_none() -> None:
    for said in ("", "search for it", "<search>open", "<delete>all</delete>", "</search><search>", None, 7, ["x"], {}):
        assert find_call(said, NAMES) is None
    assert find_call("<search>x</search>", ()) is None


def test_openai_shape() -> None:
    def call(arguments: object, name: str = "search") -> dict[str, object]:
        return {
            "role": "assistant",
            "content": "Hm.",
            "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
        }

    assert find_call(call('{"query": "Iliad"}'), NAMES) == Call("search", "Iliad", "Hm.")
    assert find_call(call({"query": "Iliad"}), NAMES) == Call("search", "Iliad", "Hm.")
    assert find_call(call('{"a": 1, "b": 2}'), NAMES) == Call("search", '{"a": 1, "b": 2}', "Hm.")
    assert find_call(call('{"count": 3}'), NAMES) == Call("search", "3", "Hm.")
    assert find_call(call("not json"), NAMES) == Call("search", "not json", "Hm.")
    assert find_call(call("[" * 10_000), NAMES) == Call("search", "[" * 10_000, "Hm.")
    assert find_call(call("{}", name="delete"), NAMES) is None
    assert find_call({"role": "assistant", "content": "<python>1</python>", "tool_calls": "x"}, NAMES) == Call(
        "python", "1", ""
    )


@given(st.text(), st.text())
def test_a_tag_gives_back_what_is_in_it(before: str, inside: str) -> None:
    if "</search>" in inside or "<search>" in before or "<python>" in before:
        return
    assert find_call(f"{before}<search>{inside}</search>", NAMES) == Call("search", inside.strip(), before)


def test_a_megabyte_of_tags_is_looked_at_once() -> None:
    assert find_call("<search>" * LONGEST, NAMES) is None
