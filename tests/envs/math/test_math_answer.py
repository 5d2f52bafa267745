"""Which part of a solution is the answer, and which answers a judge gets to see."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.math.answer import LONGEST_ANSWER, LONGEST_SOLUTION, last_answer, readable, said


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{1}, no: \boxed{2}", "2"),
        (r"<answer>1</answer> or \boxed{2}", "2"),
        (r"\boxed{2} or <answer> 1 </answer>", "1"),
        (r"<answer>\boxed{3}</answer>", "3"),
        (r"\boxed{<answer>3</answer>}", "3"),
        (r"\fbox{4}", "4"),
        (r"\boxed {5}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{1} \boxed{2", None),
        (r"\boxed 3", None),
        (r"\boxed", None),
        (r"\boxedness of {3}", None),
        ("<answer>3", None),
        ("it is 3", None),
        ("", None),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_one_counts(solution: str, answer: str | None) -> None:
    assert last_answer(solution) == answer


def test_text_and_messages_say_something_and_nothing_else_does() -> None:
    assert said(r"\boxed{3}") == r"\boxed{3}"
    assert said({"role": "assistant", "content": "3"}) == "3"
    for nothing in (None, 3, b"3", ["3"], {}, {"content": None}, {"content": [{"text": "3"}]}):
        assert said(nothing) is None


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "1" * (LONGEST_ANSWER + 1),
        "1}",
        r"1} \boxed{2",
        "{",
        "(" * 300,
        "1\u200b2",
        "\u202e21",
        "\ud800",
        "1\x00",
        "\ue000",
    ],
)
def test_what_cannot_be_read_is_refused(answer: str) -> None:
    assert not readable(answer)


@pytest.mark.parametrize(
    "answer", ["3", r"\frac{1}{2}", "x \\in [1, 2)", "½", "π", "−3", "答え", r"\{1\}", r"\left\{ x \right."]
)
def test_what_can_be_read_is_not(answer: str) -> None:
    assert readable(answer)


@given(st.text(alphabet="\\boxed{}answer</> 12\u200b", max_size=200))
def test_any_text_has_an_answer_or_none(solution: str) -> None:
    answer = last_answer(solution)
    assert answer is None or answer in solution


@given(st.text(alphabet="{}\\ab1", max_size=30))
def test_what_is_boxed_is_found_again(inner: str) -> None:
    if readable(inner) and "\\boxed" not in inner:
        assert last_answer(f"so \\boxed{{{inner}}}.") == inner.strip()


@pytest.mark.parametrize("piece", [r"\boxed{", "<answer>", "{", "\\", r"\boxed{1}", "</answer><answer>"])
def test_a_megabyte_is_read_at_once(piece: str) -> None:
    solution: Any = said(piece * (LONGEST_SOLUTION // len(piece) + 1000))
    assert len(solution) == LONGEST_SOLUTION
    began = time.process_time()
    last_answer(solution)
    assert time.process_time() - began < 2
