"""A room, the state of play in it, and the rules: what one move does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from palaestra.errors import DataError

WALL, FLOOR, TARGET, BOX, PLAYER, DONE, ON_TARGET = "#_OXP√S"
LEGEND = (
    "# is a wall, _ the floor, O a target, X a box, √ a box on a target, P you, and S you on a target. "
    "Boxes can be pushed, never pulled."
)
MOST_SIDE, MOST_BOXES = 40, 40
"""Bounds on a room that somebody else wrote."""


class State(NamedTuple):
    """Who stands where; a cell is `row * width + column`."""

    player: int
    boxes: frozenset[int]


@dataclass(frozen=True)
class Room:
    """What never moves. The cells of the outer edge are walls, so that no move wraps around."""

    width: int
    height: int
    floor: frozenset[int]
    """Cells that are no walls."""
    targets: frozenset[int]

    @cached_property
    def steps(self) -> dict[str, int]:
        """Direction -> what a move in it adds to a cell."""
        return {"up": -self.width, "down": self.width, "left": -1, "right": 1}

    @cached_property
    def cells(self) -> tuple[str, ...]:
        """The symbol of each cell where nobody stands."""
        symbols = {**dict.fromkeys(self.floor, FLOOR), **dict.fromkeys(self.targets, TARGET)}
        return tuple(symbols.get(cell, WALL) for cell in range(self.width * self.height))


def move(room: Room, state: State, step: int) -> State:
    """The state after a move by `step`; the same object where the way is blocked."""
    ahead = state.player + step
    if ahead not in room.floor:
        return state
    if ahead not in state.boxes:
        return State(ahead, state.boxes)
    beyond = ahead + step
    if beyond not in room.floor or beyond in state.boxes:
        return state
    return State(ahead, (state.boxes - {ahead}) | {beyond})


def admissible(room: Room, state: State) -> list[str]:
    """The directions in which a move changes something."""
    return [name for name, step in room.steps.items() if move(room, state, step) is not state]


def solved(room: Room, state: State) -> bool:
    """Whether every box stands on a target."""
    return state.boxes <= room.targets


def picture(room: Room, boxes: frozenset[int] = frozenset(), player: int = -1) -> tuple[str, ...]:
    """The room as text, a line for each row; without a player where there is none."""
    cells = list(room.cells)
    for cell in boxes:
        cells[cell] = DONE if cell in room.targets else BOX
    if player >= 0:
        cells[player] = ON_TARGET if player in room.targets else PLAYER
    text = "".join(cells)
    return tuple(text[start : start + room.width] for start in range(0, len(text), room.width))


def parse(text: str) -> tuple[Room, State]:
    """The room and state that `picture` shows; rows may be of unequal length, and are filled up and fenced with walls.

    Raises:
        DataError: it is no such picture, has no player or several, or not one target for each box.
    """
    lines = text.strip("\n").split("\n") if isinstance(text, str) and len(text) <= 2 * MOST_SIDE**2 else []
    if not lines or not any(lines) or max(len(lines), *map(len, lines)) > MOST_SIDE:
        raise DataError(f"a sokoban room is text of at most {MOST_SIDE} by {MOST_SIDE} cells")
    if strange := set("".join(lines)) - set(WALL + FLOOR + TARGET + BOX + PLAYER + DONE + ON_TARGET):
        raise DataError(f"a sokoban room has no cell {min(strange)!r}; {LEGEND}")
    width = max(map(len, lines))
    filled = [line.ljust(width, WALL) for line in lines]
    edge = "".join([filled[0], filled[-1], *(line[0] + line[-1] for line in filled)])
    fence = WALL * (width + 2)
    return _read(filled if set(edge) == {WALL} else [fence, *(WALL + line + WALL for line in filled), fence])


def _read(lines: list[str]) -> tuple[Room, State]:
    text, width = "".join(lines), len(lines[0])

    def cells(symbols: str) -> frozenset[int]:
        return frozenset(cell for cell, symbol in enumerate(text) if symbol in symbols)

    players, boxes, targets = cells(PLAYER + ON_TARGET), cells(BOX + DONE), cells(TARGET + DONE + ON_TARGET)
    if len(players) != 1:
        raise DataError(f"a sokoban room has one player, not {len(players)}")
    if not 0 < len(boxes) == len(targets) <= MOST_BOXES:
        raise DataError(
            f"a sokoban room has as many targets as boxes, 1 to {MOST_BOXES}, not {len(targets)} and {len(boxes)}"
        )
    floor = frozenset(range(len(text))) - cells(WALL)
    return Room(width, len(lines), floor, targets), State(min(players), boxes)
