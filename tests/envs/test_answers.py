import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import load

from palaestra.envs.answers import normalised, token_f1, tool_answer_reward

(CASE,) = load("aepo_reward")["cases"]


def test_reference_numbers_of_aepo() -> None:
    found = [
        tool_answer_reward(
            row["f1"],
            well_formed=row["format_ok"],
            used=[name for name in ("search", "python") if row[f"used_{name}"]],
            bonus=CASE["params"]["multi_tool_bonus"],
        )
        for row in CASE["inputs"]["rows"]
    ]
    assert found == pytest.approx(CASE["expected"]["reward"], abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),
        ("in Paris, France", "Paris", 0.5),
        ("Paris Paris", "Paris", 2 / 3),
        ("London", "Paris", 0.0),
        ("", "Paris", 0.0),
        ("the", "a", 1.0),
        ("\uff30aris", "Paris", 1.0),
    ],
)
def test_words_in_common(answer: str, gold: str, f1: float) -> None:
    assert token_f1(answer, gold) == pytest.approx(f1)


@given(st.text(max_size=40), st.text(max_size=40))
def test_f1_is_symmetric_between_0_and_1_and_1_for_equals(a: str, b: str) -> None:
    assert token_f1(a, b) == token_f1(b, a)
    assert 0 <= token_f1(a, b) <= 1
    assert token_f1(a, a) == 1
    assert (token_f1(a, b) == 1) == (sorted(normalised(a)) == sorted(normalised(b)))
