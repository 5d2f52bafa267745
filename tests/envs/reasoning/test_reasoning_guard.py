"""What scorers may be given, and what is made of what they return; and that the lists are those of the package."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.reasoning.generators import OFFERED, REFUSED, known
from palaestra.envs.reasoning.guard import ARITHMETIC, FORMULAS, LITERALS, LONGEST, judged, objection
from palaestra.errors import ConfigError, UnknownNameError

CODE = [
    "__import__('os').system('true')",
    'entry["answer"]',
    "oracle_answer",
    "entry",
    "[x for x in 'ab']",
    "().__class__",
    "open(chr(47))",
    "exec(chr(49))",
    "lambda: 1",
    "f'{oracle_answer}'",
    "9**9**9**9",
]


@pytest.mark.parametrize("generator", sorted(LITERALS | FORMULAS | ARITHMETIC))
@pytest.mark.parametrize("answer", CODE)
def test_code_never_reaches_a_scorer_that_would_run_it(generator: str, answer: str) -> None:
    if generator in FORMULAS and answer == "9**9**9**9":
        return  # a formula, however large; the judge's processor time bounds it
    assert objection(generator, answer)


@pytest.mark.parametrize(
    ("generator", "answer"),
    [
        ("string_insertion", "DDABC"),
        ("string_insertion", "['D', 'A']"),
        ("spiral_matrix", "1 2 3 4"),
        ("spiral_matrix", "[1, -2, 3]"),
        ("binary_matrix", "0 1\n1 0"),
        ("n_queens", "_ Q _ _\n_ _ _ Q"),
        ("n_queens", "[['_', 'Q'], ['Q', '_']]"),
        ("countdown", "(3 + 4)*50 / 7"),
        ("simple_integration", "3*x**2/2 + sin(x) + C"),
        ("intermediate_integration", "exp(2*x)*cos(3*x)/13 + log(x)*asin(x) + C"),
        ("polynomial_multiplication", "-12*x**3*y + 0.5*x"),
        ("chain_sum", "__import__('os')"),
    ],
)
def test_honest_answers_reach_it(generator: str, answer: str) -> None:
    assert objection(generator, answer) == ""


def test_arithmetic_is_of_the_numbers_that_are_counted() -> None:
    for answer in ("0x64", "1e2", "4!", "1_0", "6//4", "2**3", "pi", "٤+٤", "1.5"):
        assert objection("countdown", answer), answer


@given(st.text(), st.sampled_from(sorted(LITERALS | FORMULAS | ARITHMETIC)))
def test_any_text_has_an_opinion(answer: str, generator: str) -> None:
    assert isinstance(objection(generator, answer), str)


def test_deep_and_long_answers() -> None:
    assert isinstance(objection("n_queens", "[" * 60_000), str)
    assert isinstance(objection("n_queens", "-" * 60_000 + "1"), str)
    assert "longer" in objection("chain_sum", "1" * (LONGEST + 1))


@pytest.mark.parametrize(
    ("score", "reward"),
    [
        *[(1, 1.0), (True, 1.0), (0.05, 0.05), (Fraction(1, 2), 0.5), (-0.1, 0.0), (1.01, 0.0), (math.nan, 0.0)],
        *[(math.inf, 0.0), (None, 0.0), ("1", 0.0), (1j, 0.0), ([1.0], 0.0)],
    ],
)
def test_only_numbers_from_0_to_1_are_rewards(score: Any, reward: float) -> None:
    found, reason = judged(score)
    assert found == reward
    assert bool(reason) == (reward == 0.0)


def test_refused_generators_say_why() -> None:
    assert not set(REFUSED) & set(OFFERED)
    for name, reason in REFUSED.items():
        with pytest.raises(ConfigError) as caught:
            known(name)
        assert reason in str(caught.value)
    with pytest.raises(UnknownNameError, match="'countdown'"):
        known("count_down")


def test_every_generator_is_offered_or_refused_and_every_scorer_that_runs_answers_is_guarded() -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning")
    from reasoning_gym.factory import DATASETS

    assert set(OFFERED) | set(REFUSED) == set(DATASETS)
    run = set()
    for name, (kind, _) in DATASETS.items():
        source = inspect.getsource(kind.score_answer)
        if "eval(answer" in source or "parse_expr(" in source or "sympify" in source or "exec(" in source:
            run.add(name)
    assert run == LITERALS | FORMULAS | ARITHMETIC | {"composite"} & run
