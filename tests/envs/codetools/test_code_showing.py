"""What the agent is shown of what its code printed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.codetools.showing import shown, shown_output
from palaestra.sandboxes.commands import Output


@given(st.binary(max_size=3000), st.integers(0, 500))
def test_it_is_never_much_longer_than_asked(raw: bytes, most: int) -> None:
    text = shown(raw, most)
    assert len(text) <= most + 50
    text.encode()
    if "left out" not in text:
        assert text == shown(raw, 1 << 20)


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(1, 10**9), st.integers(2, 100))
def test_a_stream_without_its_middle_keeps_both_ends(head: bytes, tail: bytes, dropped: int, most: int) -> None:
    text = shown_output(Output(head, tail, dropped), most)
    assert len(text) <= most + 60
    assert "characters left out" in text


def test_colours_addresses_and_control_characters_go() -> None:
    raw = b"\x1b[1;31mred\x1b[0m <A object at 0x7f4d8b5a4570> \x07 0x7f4d8b5a4570\n"
    assert shown(raw, 100) == "red <A object at 0x...>  0x7f4d8b5a4570\n"
    assert shown_output(Output(b"", b""), 10) == ""


def test_of_an_odd_length_both_ends_are_there() -> None:
    assert shown(b"a" * 10 + b"b" * 10, 4) == "aa\n[16 characters left out]\nbb"
    assert shown(b"ab", 0) == "\n[2 characters left out]\n"
    assert shown_output(Output(b"aaaa", b"bbbb", 92), 4) == "aa\n[96 characters left out]\nbb"
