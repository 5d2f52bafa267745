from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.agents.context import FullContext, Turn, WindowContext
from palaestra.errors import ConfigError


def turns_of(n: int, prefix: int = 1) -> tuple[range, list[Turn]]:
    """`n` turns of four nodes (observation, generation, completion, close); the last has no completion yet."""
    starts = [prefix + 4 * i for i in range(n)]
    turns = [Turn(range(s, s + 1), range(s + 1, s + 4)) for s in starts]
    turns[-1] = Turn(turns[-1].observation, range(starts[-1] + 1, starts[-1] + 2))
    return range(prefix), turns


def test_full_is_everything() -> None:
    assert FullContext().select(*turns_of(3)) == list(range(11))


def test_window_keeps_prefix_first_observation_and_last_turns() -> None:
    assert WindowContext(2).select(*turns_of(4)) == [0, 1, 9, 10, 11, 12, 13, 14]
    assert WindowContext(2, keep_first=False).select(*turns_of(4)) == [0, 9, 10, 11, 12, 13, 14]
    assert WindowContext(1).select(*turns_of(2)) == [0, 1, 5, 6]


@given(n=st.integers(1, 12), k=st.integers(1, 12), prefix=st.integers(0, 2), keep=st.booleans())
def test_window_properties(n: int, k: int, prefix: int, keep: bool) -> None:
    before, turns = turns_of(n, prefix)
    chosen = WindowContext(k, keep).select(before, turns)
    full = FullContext().select(before, turns)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(full)
    assert chosen[-2:] == full[-2:], "the present turn is whole"
    if n <= k:
        assert chosen == full


def test_a_window_of_no_turns_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        WindowContext(0)
