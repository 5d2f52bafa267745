"""Plans: A* over pushes, counted in moves, with cells and blocks that no box comes back from left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from palaestra.envs.sokoban.room import Room, State, move

OPTIMAL = 1_000
"""States that are looked into for a plan with the fewest moves."""
HASTY = 20_000
"""States that are looked into after that for any plan, nearest to the goal first."""
WEIGHT = 5.0
"""How much more than the moves so far the estimate counts in a hasty search."""
MOST_ASSIGNED = 5
"""Boxes that are assigned to targets exactly; of more the estimate counts each one's nearest target."""

Path = tuple[str, ...]


def plan(room: Room, state: State) -> Path | None:
    """Directions that solve the room from `state`: the fewest possible where these are found within `OPTIMAL` states,
    else any; `None` where there are none, or none was found in time. The same for the same arguments."""
    exact, exhausted = search(room, state, 1.0, OPTIMAL)
    if exact is not None or exhausted:
        return exact
    return search(room, state, WEIGHT, HASTY)[0]


def search(room: Room, state: State, weight: float, most: int) -> tuple[Path | None, bool]:
    """A* that counts the estimate `weight` times; with 1 the plan has the fewest moves.

    Returns:
        The plan, and whether all states were looked into, so that without a plan there is none.
    """
    parents: dict[State, Push] = {}
    moves, settled, order = {state: 0}, set[State](), 0
    queue = [(weight * pushes_left(room, state.boxes), 0, state)]
    while queue and len(settled) < most:
        _, _, here = heappop(queue)
        if here in settled:
            continue
        settled.add(here)
        if here.boxes <= room.targets:
            return _path(room, parents, here), True
        for walked, push, there in _pushes(room, here):
            cost = moves[here] + walked + 1
            if cost < moves.get(there, inf) and (left := pushes_left(room, there.boxes)) < inf:
                moves[there], parents[there], order = cost, push, order + 1
                heappush(queue, (cost + weight * left, order, there))
    return None, not queue


class Push(NamedTuple):
    """A box pushed."""

    before: State
    stand: int
    """Where the player pushes from."""
    step: int


def _pushes(room: Room, state: State) -> Iterator[tuple[int, Push, State]]:
    """(moves to walk first, push, state after it) of every push that loses nothing at once."""
    walks, dead = reach(room, state), dead_cells(room)
    for box in sorted(state.boxes):
        for step in room.steps.values():
            if box - step in walks and box + step not in dead:
                there = move(room, State(box - step, state.boxes), step)
                if there.player == box and not jammed(room, there.boxes, box + step):
                    yield walks[box - step], Push(state, box - step, step), there


def reach(room: Room, state: State) -> dict[int, int]:
    """Every cell that the player can walk to -> how many moves it takes."""
    found, queue = {state.player: 0}, deque([state.player])
    while queue:
        cell = queue.popleft()
        for step in room.steps.values():
            there = cell + step
            if there in room.floor and there not in state.boxes and there not in found:
                found[there] = found[cell] + 1
                queue.append(there)
    return found


def _path(room: Room, parents: dict[State, Push], end: State) -> Path:
    names = {step: name for name, step in room.steps.items()}
    path, state = list[str](), end
    while state in parents:  # backwards
        push = parents[state]
        path += [names[push.step], *(names[step] for step in _walk_back(room, push.before, push.stand))]
        state = push.before
    return tuple(reversed(path))


def _walk_back(room: Room, state: State, cell: int) -> Iterator[int]:
    """The steps of a shortest walk from the player to `cell`, the last one first."""
    walks = reach(room, state)
    while walks[cell]:
        step = next(s for s in room.steps.values() if walks.get(cell - s, -1) == walks[cell] - 1)
        yield step
        cell -= step


def pushes_left(room: Room, boxes: frozenset[int]) -> float:
    """A lower bound of the pushes that it takes yet; infinite where a box cannot come to any target."""
    distances = push_distances(room)
    if len(boxes) > MOST_ASSIGNED:
        return sum(min(row.get(box, inf) for row in distances) for box in boxes)
    best = {0: 0.0}  # set of targets, as bits -> fewest pushes that bring the boxes so far to them
    for box in boxes:
        further: dict[int, float] = {}
        for taken, pushes in best.items():
            for target, row in enumerate(distances):
                if not taken >> target & 1 and box in row:
                    mask, cost = taken | 1 << target, pushes + row[box]
                    if cost < further.get(mask, inf):
                        further[mask] = cost
        best = further
    return min(best.values(), default=inf)


@lru_cache(256)
def push_distances(room: Room) -> tuple[dict[int, int], ...]:
    """For each target, every cell from which a box alone in the room can be pushed to it -> pushes that it takes."""
    found = []
    for target in sorted(room.targets):
        distance, queue = {target: 0}, deque([target])
        while queue:
            cell = queue.popleft()
            for step in room.steps.values():
                before, stand = cell - step, cell - 2 * step
                if before in room.floor and stand in room.floor and before not in distance:
                    distance[before] = distance[cell] + 1
                    queue.append(before)
        found.append(distance)
    return tuple(found)


@lru_cache(256)
def dead_cells(room: Room) -> frozenset[int]:
    """Cells from which no box comes to any target."""
    return room.floor.difference(*push_distances(room))


def deadlocked(room: Room, boxes: frozenset[int]) -> bool:
    """Whether the room is seen to be lost: a box on a dead cell, or one off its target in a block that cannot move.

    Cheap, and silent about rooms that are lost in cleverer ways.
    """
    dead = dead_cells(room)
    return any(box in dead or jammed(room, boxes, box) for box in boxes)


def jammed(room: Room, boxes: frozenset[int], box: int) -> bool:
    """Whether `box` is part of a square of four boxes or walls, not all boxes of which are on targets."""
    for down in (-room.width, room.width):
        for across in (-1, 1):
            square = (box, box + down, box + across, box + down + across)
            stuck = [cell for cell in square if cell in boxes]
            if all(cell in boxes or cell not in room.floor for cell in square) and not room.targets.issuperset(stuck):
                return True
    return False
