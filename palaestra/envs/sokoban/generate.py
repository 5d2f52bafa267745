"""Rooms from seeds by playing backwards, at named levels, with splits that cannot overlap.

As in Schrader's gym-sokoban: a walk digs the room, boxes start on their targets, and pulling them away makes a room
that can be solved. A hash of the layout, walls and targets, turned and mirrored as you like, decides the split: no test
room has the walls and targets of a training room.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from palaestra.envs.grids import canonical
from palaestra.envs.params import split_of
from palaestra.envs.sokoban.room import Room, State, picture
from palaestra.envs.sokoban.solver import HASTY, WEIGHT, pushes_left, reach, search
from palaestra.envs.tasks import SPLITS
from palaestra.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Level:
    """How large the rooms are and how hard."""

    side: int
    """Cells, the walls around included."""
    boxes: int
    pulls: int
    """Of playing backwards; the farthest state on the way is the room's start."""
    least: int
    """Fewest pushes that it has to take at least."""
    max_turns: int
    """Moves after which an episode is cut off; the solver needs no more."""


LEVELS = {
    "tiny": Level(5, 1, 10, 1, 20),
    "small": Level(6, 1, 20, 3, 30),
    "medium": Level(7, 2, 40, 5, 60),
    "large": Level(10, 4, 150, 12, 120),
}
TURN = 0.35
"""How often the digging walk turns."""
DIGS = 3
"""Steps of the digging walk, for every four cells."""
WIDE = 0.5
"""How often it digs a second cell beside its own."""


@lru_cache(4096)
def generate(level: str, split: str, index: int) -> tuple[Room, State]:
    """Room number `index` of a split; always the same one.

    Raises:
        UnknownNameError: no such level or split.
    """
    if level not in LEVELS:
        raise UnknownNameError("level of sokoban", level, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of sokoban", split, SPLITS)
    rng = random.Random(f"sokoban/{level}/{split}/{index}")
    for _ in count():
        room = _draw_room(rng, LEVELS[level])
        if room is not None and split_of(layout(room)) == split:
            state = _draw_state(rng, room, LEVELS[level])
            if state is not None:
                return room, state
    raise AssertionError("unreachable: count() does not end")


def layout(room: Room) -> str:
    """Walls and targets, the same however the room is turned or mirrored, and wherever boxes and player stand."""
    return canonical(picture(room))


def _draw_room(rng: random.Random, level: Level) -> Room | None:
    """One attempt at a room; `None` where it is too small."""
    floor = _dig(rng, level.side)
    if len(floor) < 2 * level.boxes + 2:
        return None
    return Room(level.side, level.side, floor, frozenset(rng.sample(sorted(floor), level.boxes)))


def _draw_state(rng: random.Random, room: Room, level: Level) -> State | None:
    """One attempt at where boxes and player stand; `None` where it is too easy, or too long for the level's limit."""
    player = rng.choice(sorted(room.floor - room.targets))
    state = _pulled_apart(rng, room, State(player, room.targets), level.pulls)
    if pushes_left(room, state.boxes) < level.least:
        return None
    path, _ = search(room, state, WEIGHT, HASTY)
    return state if path is not None and len(path) <= level.max_turns else None


def _dig(rng: random.Random, side: int) -> frozenset[int]:
    """The cells of a walk through solid rock, here and there two cells wide."""
    steps = (-side, side, -1, 1)
    inside = {row * side + column for row in range(1, side - 1) for column in range(1, side - 1)}
    cell, step = rng.choice(sorted(inside)), rng.choice(steps)
    floor = {cell}
    for _ in range(DIGS * side * side // 4):
        if rng.random() < TURN:
            step = rng.choice(steps)
        if cell + step in inside:
            cell += step
        floor.add(cell)
        beside = cell + rng.choice(steps)
        if beside in inside and rng.random() < WIDE:
            floor.add(beside)
    return frozenset(floor)


def _pulled_apart(rng: random.Random, room: Room, state: State, pulls: int) -> State:
    """The state farthest from the solved one on a random walk of pulls; the player then stands anywhere near."""
    best, far, last = state, 0.0, (0, 0)
    for _ in range(pulls):
        options = _pulls(room, state)
        if not options:
            break
        forward = [option for option in options if option[:2] != last]  # does not at once undo itself
        box, step, state = rng.choice(forward or options)
        last = box + step, -step
        left = pushes_left(room, state.boxes)
        if left > far and not state.boxes & room.targets:
            best, far = state, left
    return State(rng.choice(sorted(reach(room, best))), best.boxes)


def _pulls(room: Room, state: State) -> list[tuple[int, int, State]]:
    """(box, step, state after it) of every pull that the player can walk to."""
    walks, found = reach(room, state), []
    for box in sorted(state.boxes):
        for step in room.steps.values():
            stand, there = box + step, box + 2 * step
            if stand in walks and there in room.floor and there not in state.boxes:
                found.append((box, step, State(there, (state.boxes - {box}) | {stand})))
    return found
