"""Output is cut down to what an agent needs."""

import string

from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.swe.truncation import LEAST, shortened, tidied

_LINES = st.lists(st.text(alphabet=string.printable + "é☃", max_size=120), max_size=200)


@given(st.one_of(st.text(max_size=5000), _LINES.map("\n".join)), st.integers(0, 3000))
def test_never_more_than_asked_for(text: str, most: int) -> None:
    short = shortened(text, most)
    assert len(short) <= max(most, LEAST)
    assert short == shortened(text, most)


@given(_LINES.map("\n".join))
def test_short_text_is_only_tidied(text: str) -> None:
    assert shortened(text, 100_000) == tidied(text)


def test_head_and_tail_stay_and_the_middle_says_how_much_it_was() -> None:
    lines = [f"step {number}" for number in range(1000)]
    short = shortened("\n".join(lines), 600).split("\n")
    assert short[:3] == lines[:3]
    assert short[-3:] == lines[-3:]
    (mark,) = [line for line in short if "left out" in line]
    assert int(mark.split()[1]) == 1000 - (len(short) - 1)


def test_failed_tests_and_errors_in_the_middle_stay() -> None:
    noise = [f"tests/test_{number}.py ....." for number in range(400)]
    failures = ["FAILED tests/test_lists.py::test_order - assert 1 == 2", "E       assert 1 == 2"]
    text = "\n".join([*noise[:200], *failures, *noise[200:], "3 failed, 900 passed in 2.13s"])
    short = shortened(text, 1500)
    for line in (*failures, "3 failed, 900 passed in 2.13s"):
        assert line in short.split("\n")


def test_summaries_of_failed_tests_come_before_other_errors() -> None:
    errors = [f"error: number {number} of many that all look alike" for number in range(300)]
    text = "\n".join([*["."] * 0, *errors, "FAILED tests/test_a.py::test_b", *errors])
    assert "FAILED tests/test_a.py::test_b" in shortened(text, 1000)


def test_a_long_line_keeps_its_ends() -> None:
    short = shortened("a" + "b" * 1_000_000 + "c", 2000)
    assert short.startswith("ab")
    assert short.endswith("bc")
    assert "characters left out" in short


def test_equal_lines_are_told_once() -> None:
    short = shortened("\n".join(["start", *["the same"] * 5000, "end"]), 500)
    assert short == "start\nthe same\n[... the same line 4999 times more ...]\nend"


def test_what_a_terminal_would_not_show_goes() -> None:
    assert tidied("\x1b[31mred\x1b[0m\r\n 10%\r 50%\r100%\nbell\x07") == "red\n100%\nbell\ufffd"
    assert tidied("\x1b]0;title\x07shown") == "shown"
