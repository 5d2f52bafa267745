"""Curricula: suites one after the other, and who decides between them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.curriculum import Controller, Level, level_of, load_curriculum, shares
from palaestra.errors import ConfigError, DataError, UnknownNameError

Outcomes = list[list[tuple[int, bool]]]
ITERATIONS = st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12), max_size=20)


def controller(levels: int = 3, window: int = 8, least: int = 4) -> Controller:
    return Controller(levels, raise_at=0.75, lower_at=0.25, window=window, least=least)


def test_success_raises_the_level_and_failure_lowers_it() -> None:
    it = controller()
    it.observe([(0, True)] * 3)
    assert (it.level, it.rates()) == (0, [1.0, None, None])
    it.observe([(0, True)])
    assert it.level == 1
    it.observe([(1, True), (1, False)] * 4)
    assert (it.level, it.rates()) == (1, [1.0, 0.5, None])
    it.observe([(1, False)] * 4)
    assert (it.level, it.rates()) == (0, [None, 0.25, None])


def test_the_first_level_has_none_below_and_the_last_none_above() -> None:
    it = controller(2)
    it.observe([(0, False)] * 20)
    assert it.level == 0
    it.observe([(0, True)] * 20)
    it.observe([(1, True)] * 20)
    assert (it.level, it.rates()) == (1, [1.0, 1.0])


def test_one_step_at_a_time_and_by_the_present_level_only() -> None:
    it = controller()
    it.observe([(0, True)] * 8 + [(1, True)] * 8)
    assert it.level == 1
    it.observe([(0, True)] * 8)
    assert it.level == 1


@given(ITERATIONS, ITERATIONS)
def test_a_saved_controller_goes_on_as_it_would_have(before: Outcomes, after: Outcomes) -> None:
    first, second = controller(), controller()
    for outcomes in before:
        first.observe(outcomes)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for outcomes in after:
        first.observe(outcomes)
        second.observe(outcomes)
        assert second.state_dict() == first.state_dict()
        assert all(len(results) <= 8 for results in first.state_dict()["results"])


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"level": 0},
        {"level": 3, "results": [[], [], []]},
        {"level": 0, "results": [[]]},
        {"level": 0, "results": 1},
    ],
)
def test_what_is_no_saved_state_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(DataError, match="curriculum"):
        controller().load_state_dict(state)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="lower_at"):
        Controller(2, raise_at=0.2, lower_at=0.2, window=8, least=4)
    with pytest.raises(ConfigError, match="least"):
        Controller(2, raise_at=0.7, lower_at=0.2, window=8, least=9)


@given(st.integers(0, 9), st.integers(1, 64), st.floats(0, 0.99), st.floats(0, 0.99))
def test_shares_add_up_and_leave_the_present_level_something(
    level: int, count: int, earlier: float, draw: float
) -> None:
    found = shares(level, count, earlier, draw)
    assert (len(found), sum(found)) == (level + 1, count)
    assert min(found) >= 0
    assert found[-1] >= 1
    assert level == 0 or abs(sum(found[:-1]) - min(count * earlier, count - 1)) <= 1


def test_levels_follow_each_other_with_names_of_their_own() -> None:
    levels = [Level(suite="alfworld/small:train[:3]"), Level(suite="alfworld/small:train[:5]")]
    suite = load_curriculum(levels)
    assert (len(suite), suite.starts, suite.split) == (8, (0, 3, 8), "train")
    names = [task.name for task in suite]
    assert len(set(names)) == 8
    assert [level_of(name) for name in names] == [0] * 3 + [1] * 5
    assert names[0].partition("/")[2] == names[3].partition("/")[2]
    assert load_curriculum(levels).name == suite.name != load_curriculum(levels[::-1]).name


def test_levels_that_are_none_are_named() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        load_curriculum([Level(suite="alfworld:train")])
    with pytest.raises(ConfigError, match=r"\[0:0\] of the curriculum has no tasks"):
        load_curriculum([Level(suite="alfworld:train"), Level(suite="alfworld:train[0:0]")])
    with pytest.raises(UnknownNameError, match="alfworld"):
        load_curriculum([Level(suite="alfwolrd:train"), Level(suite="alfworld:train")])
