"""What an iteration plays: the walk, further groups, and what choosers and allocators change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.levers import register_levers

from palaestra.config import RolloutConfig
from palaestra.envs.tasks import Task, TaskSuite, load_suite
from palaestra.training.sampling import TaskSampler, Walk, in_turn
from palaestra.training.seams import Allocation, Choice, Moment, Parts


@dataclass(frozen=True)
class Last:
    """The last tasks of the suite."""

    def __call__(self, suite: Sequence[Task], count: int, moment: Moment, taken: Collection[int] = ()) -> Choice:
        return Choice(in_turn(np.arange(len(suite))[::-1], count, taken), {"taken": float(len(taken))})


@dataclass(frozen=True)
class Stairs:
    """One episode less for the first task, one more for the last."""

    def __call__(self, tasks: Sequence[Task], size: int, moment: Moment) -> Allocation:
        return Allocation([size - 1, *[size] * (len(tasks) - 2), size + 1], {"stairs": 1.0})


@pytest.fixture
def sampler() -> TaskSampler:
    register_levers()
    return TaskSampler(load_suite("levers:train"), RolloutConfig(groups=3, group_size=2), seed=1)


def test_an_algorithm_without_a_say_walks(sampler: TaskSampler) -> None:
    found = sampler.round(Moment(2, 8))
    assert [episode.id for episode in found.episodes] == ["2/0/0", "2/0/1", "2/1/0", "2/1/1", "2/2/0", "2/2/1"]
    assert [episode.group for episode in found.episodes[::2]] == ["2/0", "2/1", "2/2"]
    assert found.log == {}
    assert [sampler.suite[place].name for place in found.places] == [e.task.name for e in found.episodes[::2]]
    assert found.episodes == sampler.round(Moment(2, 8), Parts(), groups=3).episodes


def test_choosers_and_allocators_have_their_say(sampler: TaskSampler) -> None:
    found = sampler.round(Moment(0, 8), Parts(chooser=Last(), allocator=Stairs()))
    assert found.places == (11, 10, 9)
    names = [episode.task.name for episode in found.episodes]
    assert names == ["train-11", "train-10", "train-10", "train-9", "train-9", "train-9"]
    assert [episode.id for episode in found.episodes][-3:] == ["0/2/0", "0/2/1", "0/2/2"]
    assert found.log == {"taken": 0.0, "stairs": 1.0, "rollouts_min": 1, "rollouts_max": 3}


@pytest.mark.parametrize("parts", [Parts(), Parts(chooser=Last())], ids=["walk", "chooser"])
def test_further_groups_are_others_and_go_on_counting(sampler: TaskSampler, parts: Parts) -> None:
    moment = Moment(1, 8)
    first = sampler.round(moment, parts)
    second = sampler.round(moment, parts, groups=4, taken=first.places)
    assert not set(first.places) & set(second.places)
    assert len(second.places) == len(set(second.places)) == 4
    assert [episode.group for episode in second.episodes[::2]] == ["1/3", "1/4", "1/5", "1/6"]
    assert second.places == sampler.round(moment, parts, groups=4, taken=first.places).places
    third = sampler.round(moment, parts, groups=8, taken=[*first.places, *second.places])
    assert set(third.places) == set(range(12)) - set(first.places) - set(second.places) | set(third.places[5:])


def test_further_groups_leave_the_walk_as_it_is() -> None:
    suite = TaskSuite("a", "train", 20, lambda i: Task(env="a/A-v0", name=str(i)))
    alone, disturbed = Walk(3), Walk(3)
    for iteration in range(9):
        moment = Moment(iteration, 9)
        places = alone(suite, 4, moment).places
        assert disturbed(suite, 4, moment).places == places
        disturbed(suite, 5, moment, places)


@given(st.integers(1, 6), st.integers(0, 15), st.sets(st.integers(0, 5)))
def test_all_come_before_any_comes_again(size: int, count: int, taken: set[int]) -> None:
    order = np.random.default_rng(0).permutation(size)
    found = in_turn(order, count, taken)
    assert len(found) == count
    fresh = [place for place in order.tolist() if place not in taken]
    assert found[: len(fresh)] == fresh[:count]
    for start in range(0, count - size + 1, size):
        assert sorted(found[start : start + size]) == list(range(size))


def test_only_the_tasks_that_are_played_are_built() -> None:
    built: list[int] = []

    def build(index: int) -> Task:
        built.append(index)
        return Task(env="a/A-v0", name=str(index))

    suite = TaskSuite("a", "train", 100_000, build)
    found = TaskSampler(suite, RolloutConfig(groups=3, group_size=2), seed=0).round(Moment(5, 8))
    assert sorted(built) == sorted(found.places)
