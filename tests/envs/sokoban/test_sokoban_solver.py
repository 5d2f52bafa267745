"""Plans: the fewest moves, by comparison with a search through everything; deadlocks."""

from __future__ import annotations

from collections import deque

import pytest

from palaestra.envs.sokoban import solver
from palaestra.envs.sokoban.generate import LEVELS, generate
from palaestra.envs.sokoban.room import Room, State, move, parse, solved
from palaestra.envs.sokoban.solver import deadlocked, plan, pushes_left, search


def fewest(room: Room, start: State) -> tuple[int | None, dict[State, int]]:
    """Moves of a shortest plan, by breadth-first search through every state; and all states that can be reached."""
    seen, queue, best = {start: 0}, deque([start]), None
    while queue:
        state = queue.popleft()
        if solved(room, state):
            best = seen[state] if best is None else best
            continue
        for step in room.steps.values():
            there = move(room, state, step)
            if there not in seen:
                seen[there] = seen[state] + 1
                queue.append(there)
    return best, seen


@pytest.mark.parametrize(("level", "index"), [(level, i) for level in ("tiny", "small", "medium") for i in range(8)])
def test_plans_are_shortest_and_solve(level: str, index: int) -> None:
    room, state = generate(level, "validation", index)
    path = plan(room, state)
    assert path is not None
    assert len(path) == fewest(room, state)[0]
    for name in path:
        assert not solved(room, state)
        state = move(room, state, room.steps[name])
    assert solved(room, state)


def test_from_every_state_the_plan_is_shortest_or_there_is_none() -> None:
    """Also from those that are lost; what is called a deadlock is one."""
    lost = 0
    for index in range(4):
        room, start = generate("small", "train", index)
        for state in list(fewest(room, start)[1])[::7]:
            path, best = plan(room, state), fewest(room, state)[0]
            assert (None if path is None else len(path)) == best
            lost += best is None
            assert best is None or not deadlocked(room, state.boxes)
    assert lost


def test_large_rooms_are_solved_within_their_limit() -> None:
    for index in range(3):
        room, state = generate("large", "train", index)
        path = plan(room, state)
        assert path is not None
        assert len(path) <= LEVELS["large"].max_turns
        for name in path:
            state = move(room, state, room.steps[name])
        assert solved(room, state)


def test_the_estimate_is_a_lower_bound() -> None:
    for index in range(5):
        room, state = generate("medium", "train", index)
        exact, _ = search(room, state, 1.0, 10_000)
        assert exact is not None
        assert pushes_left(room, state.boxes) <= len(exact)


def test_a_box_in_a_corner_and_a_block_are_deadlocks() -> None:
    room, state = parse("X__\n_P_\n_O_")
    assert deadlocked(room, state.boxes)
    assert plan(room, state) is None
    room, state = parse("_____\n_XX__\n_XX_P\n_____\nOOOO_")
    assert deadlocked(room, state.boxes)
    room, state = parse("_____\n_√√__\n_√√_P\n_____\n_OX__")
    assert not deadlocked(room, state.boxes)


def test_many_boxes_are_searched_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["O" * 12, "_" * 12, *(["_X" * 6] * 2), "_" * 12, "P" + "_" * 11, "_" * 12]
    room, state = parse("\n".join(rows))
    monkeypatch.setattr(solver, "OPTIMAL", 50)
    monkeypatch.setattr(solver, "HASTY", 50)
    assert pushes_left(room, state.boxes) > 0
    assert plan(room, state) is None
