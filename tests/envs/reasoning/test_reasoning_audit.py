"""No generator that is offered pays for nonsense, and those that are refused do."""

from __future__ import annotations

import pytest

from palaestra.envs.reasoning.audit import LIMIT, audit, table
from palaestra.envs.reasoning.generators import OFFERED, REFUSED

pytest.importorskip("reasoning_gym", reason="needs the extra reasoning")

SLOW = {"knight_swap", "sokoban", "intermediate_integration", "zebra_puzzles", "futoshiki", "quantum_lock"}
"""A second and more for a question."""
NONSENSE = ("empty", "random", "echo", "?", "[]", "{}", "[[]]", "null", "oracle_answer", 'entry["answer"]')
"""What is right nowhere, not even by chance."""


def test_nonsense_earns_next_to_nothing_where_it_is_offered() -> None:
    for name in OFFERED:
        if name not in SLOW:
            found = audit(name, 4)
            worst = max(NONSENSE, key=found.scores.__getitem__)
            assert found.scores[worst] <= 0.25, (name, worst)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_nor_where_questions_are_slow(name: str) -> None:
    assert audit(name, 2).excess <= LIMIT


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {"composite"}))
def test_what_is_refused_pays_for_some_constant(name: str) -> None:
    found = audit(name, 12)
    assert found.excess > 0.3
    assert f"| `{name}` |" in table([found], 12)
    assert "| refused |" in table([found], 12)
