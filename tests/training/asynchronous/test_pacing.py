"""How far rollouts may run ahead: whatever takes how long, nothing gets too old, is lost, or waits for ever."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from palaestra.training.asynchronous.pacing import Pace


@given(
    groups=st.integers(1, 4),
    staleness=st.integers(0, 3),
    updates=st.integers(1, 8),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_every_group_is_used_once_and_in_time(groups: int, staleness: int, updates: int, data: st.DataObject) -> None:
    """Groups end in any order; an update takes its groups as soon as there is a choice."""
    pace = Pace(groups, staleness)
    running: dict[int, int] = {}
    ready: dict[int, int] = {}
    trained: dict[int, int] = {}
    begun = version = following = 0

    def begin() -> None:
        nonlocal begun
        for _ in range(pace.room(version, following, len(running) + len(ready))):
            if begun < groups * updates:
                running[begun] = version
                begun += 1

    while version < updates:
        begin()
        ids = list(ready)
        chosen = pace.choose(
            [pace.deadline(ready[each]) for each in ids], [pace.deadline(each) for each in running.values()], following
        )
        if chosen is None:
            assert running, "the learner waits for nobody"
            over = data.draw(st.sampled_from(sorted(running)))
            ready[over] = running.pop(over)
            continue
        for place in chosen:
            assert following - ready[ids[place]] <= staleness
            trained[ids[place]] = following
            del ready[ids[place]]
        following += 1
        begin()  # while the learner learns
        while running and data.draw(st.booleans()):
            over = data.draw(st.sampled_from(sorted(running)))
            ready[over] = running.pop(over)
        version += 1
    assert sorted(trained) == list(range(groups * updates))
    assert sorted(trained.values()) == sorted(list(range(updates)) * groups)


def test_without_staleness_rollouts_and_updates_take_turns() -> None:
    pace = Pace(4, 0)
    assert pace.room(version=3, following=3, outstanding=0) == 4
    assert pace.room(version=3, following=4, outstanding=0) == 0


@pytest.mark.parametrize("staleness", [1, 2])
def test_while_the_learner_learns_as_many_updates_as_the_bound_are_played(staleness: int) -> None:
    pace = Pace(4, staleness)
    assert pace.room(version=3, following=4, outstanding=0) == 4 * staleness
    assert pace.room(version=3, following=3, outstanding=0) == 4 * (staleness + 1)


def test_who_is_due_is_waited_for_and_others_go_before_who_is_not() -> None:
    pace = Pace(2, 1)
    assert pace.choose([4, 4, 4], running=[3], following=3) is None
    assert pace.choose([4, 4, 3], running=[4], following=3) == [2, 0]
    assert pace.choose([4, 4], running=[4, 4, 4], following=3) is None
