"""Who plays what, and what is said where a rank is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palaestra.agents.episode import Episode
from palaestra.envs.tasks import Task
from palaestra.training.gang import by_group, joined, shared_out
from palaestra.training.ranks import exchanged, on_first


def episode(number: int, group: str) -> Episode:
    return Episode(task=Task(env="e", name="t"), id=str(number), group=group)


@given(groups=st.lists(st.sampled_from(["", "a", "b", "c", "d"]), max_size=20), count=st.integers(1, 5))
def test_whole_groups_are_shared_out(groups: list[str], count: int) -> None:
    episodes = [episode(number, group) for number, group in enumerate(groups)]
    parts = by_group(episodes, count)
    assert len(parts) == count
    assert sorted(position for part in parts for position in part) == list(range(len(episodes)))
    for name in set(groups) - {""}:
        assert sum(any(groups[k] == name for k in part) for part in parts) == 1
    sizes = [len({groups[k] or k for k in part}) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_alone_nothing_is_shared() -> None:
    player = object()
    with joined("cpu"):
        assert shared_out(player) is player  # type: ignore[arg-type,comparison-overlap]
        assert exchanged(3) == [3]
        assert on_first(lambda: 4) == 4
