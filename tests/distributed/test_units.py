from hypothesis import given
from hypothesis import strategies as st

from palaestra.agents.episode import Episode
from palaestra.distributed.units import units_of
from palaestra.envs.tasks import Task

TASK = Task(env="test/Nothing-v0", name="nothing")


def episodes(groups: list[str]) -> list[Episode]:
    return [Episode(task=TASK, id=str(i), group=group) for i, group in enumerate(groups)]


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=40), st.integers(0, 9), st.booleans())
def test_every_episode_is_in_one_unit(groups: list[str], workers: int, whole: bool) -> None:
    asked = episodes(groups)
    units = units_of(asked, workers, whole=whole)
    assert sorted(p for unit in units for p in unit.positions) == list(range(len(asked)))
    assert all(unit.episodes == tuple(asked[p] for p in unit.positions) for unit in units)
    assert all(len({e.group for e in unit.episodes}) == 1 for unit in units), "nobody plays two groups at once"
    if whole:
        assert len(units) == len({e.group or e.id for e in asked})


def test_groups_stay_together_where_there_are_enough_of_them() -> None:
    asked = episodes(["a"] * 8 + ["b"] * 8)
    assert [len(unit) for unit in units_of(asked, 2)] == [8, 8]
    assert [len(unit) for unit in units_of(asked, 4)] == [4, 4, 4, 4]
    assert [len(unit) for unit in units_of(asked, 5)] == [4, 4, 4, 4]
    assert [len(unit) for unit in units_of(asked, 4, whole=True)] == [8, 8]
    assert units_of([], 3) == []
