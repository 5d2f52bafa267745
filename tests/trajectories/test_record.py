from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.trajectories.record import Node, StepRecord, Trajectory


def episode(turns: int, prompt: Callable[[int], list[int] | None] = lambda turn: None) -> Trajectory:
    """Each turn adds a node that the environment wrote and one that the policy sampled."""
    steps = [
        StepRecord(observation="", action="", reward=0.0, prompt=prompt(turn), completion=2 * turn + 1)
        for turn in range(turns)
    ]
    nodes = [Node(ids=[1], sampled=index % 2 == 1) for index in range(2 * turns)]
    return Trajectory(id="0", env="", task="", nodes=nodes, steps=steps)


def test_a_prompt_is_all_that_came_before() -> None:
    trajectory = episode(3)
    assert [trajectory.prompt_of(turn) for turn in range(3)] == [[0], [0, 1, 2], [0, 1, 2, 3, 4]]
    assert trajectory.prompt_of(-1) == trajectory.prompt_of(2)


def test_a_long_episode_has_prompts_too() -> None:
    assert episode(5000).prompt_of(4999) == list(range(9999))


@given(st.lists(st.booleans(), min_size=1, max_size=12))
@settings(max_examples=40)
def test_a_prompt_goes_on_from_the_last_that_was_written_down(cut: list[bool]) -> None:
    trajectory = episode(len(cut), lambda turn: [2 * turn] if cut[turn] else None)
    expected: list[int] = []
    for turn, here in enumerate(cut):
        expected = [2 * turn] if here else [*expected, *([2 * turn - 1] if turn else []), 2 * turn]
        assert trajectory.prompt_of(turn) == expected


def test_there_is_no_prompt_beyond_the_last_step() -> None:
    with pytest.raises(IndexError):
        episode(2).prompt_of(2)
