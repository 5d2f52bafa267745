"""A lake and its rules: where a step may lead."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from palaestra.errors import DataError

START, ICE, HOLE, GOAL = "SFHG"
"""As Gymnasium writes maps."""
ORDER = ("left", "down", "right", "up")
"""Directions in a circle: who slips goes to a neighbour in it."""
MOST_SIDE = 40


@dataclass(frozen=True)
class Lake:
    """A map; a cell is `row * width + column`."""

    width: int
    height: int
    holes: frozenset[int]
    start: int
    goal: int
    slippery: bool = False
    """Whether a step leads where it is meant to in one case of three, and else to either side."""

    @cached_property
    def table(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        """For each cell, direction -> where a step leads, every cell as likely as the others."""
        cells = range(self.width * self.height)
        return tuple({name: _outcomes(self, cell, name) for name in ("up", "down", "left", "right")} for cell in cells)


def step_to(lake: Lake, cell: int, direction: str) -> int:
    """The cell beside `cell`, or `cell` itself at the shore."""
    row, column = divmod(cell, lake.width)
    if direction == "left":
        return cell - 1 if column else cell
    if direction == "right":
        return cell + 1 if column < lake.width - 1 else cell
    if direction == "up":
        return cell - lake.width if row else cell
    return cell + lake.width if row < lake.height - 1 else cell


def outcomes(lake: Lake, cell: int, direction: str) -> tuple[int, ...]:
    """Where a step leads, every cell as likely as the others; a cell may come up more than once."""
    return lake.table[cell][direction]


def _outcomes(lake: Lake, cell: int, direction: str) -> tuple[int, ...]:
    if not lake.slippery:
        return (step_to(lake, cell, direction),)
    middle = ORDER.index(direction)
    return tuple(step_to(lake, cell, ORDER[(middle + turn) % 4]) for turn in (-1, 0, 1))


def admissible(lake: Lake, cell: int) -> list[str]:
    """The directions in which a step may lead away."""
    return [name for name, there in lake.table[cell].items() if there.count(cell) < len(there)]


def rows(lake: Lake) -> tuple[str, ...]:
    """The map, as Gymnasium writes it."""
    symbols = {lake.start: START, lake.goal: GOAL, **dict.fromkeys(lake.holes, HOLE)}
    cells = "".join(symbols.get(cell, ICE) for cell in range(lake.width * lake.height))
    return tuple(cells[i : i + lake.width] for i in range(0, len(cells), lake.width))


def parse(lines: object, slippery: bool) -> Lake:
    """The lake of a map of `S`, `F`, `H` and `G`, as Gymnasium's `desc`.

    Raises:
        DataError: it is no such map, or no way leads from start to goal.
    """
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        raise DataError(f"the map of a frozen lake is a list of lines of {START}{ICE}{HOLE}{GOAL}")
    if not 0 < len(lines) <= MOST_SIDE or len({*map(len, lines)}) != 1 or not 0 < len(lines[0]) <= MOST_SIDE:
        raise DataError(
            f"the map of a frozen lake has lines of equal length, and at most {MOST_SIDE} by {MOST_SIDE} cells"
        )
    cells = "".join(lines)
    if not set(cells) <= {START, ICE, HOLE, GOAL} or cells.count(START) != 1 or cells.count(GOAL) != 1:
        raise DataError(f"the map of a frozen lake has one {START}, one {GOAL}, and else {ICE} and {HOLE}")
    holes = frozenset(cell for cell, symbol in enumerate(cells) if symbol == HOLE)
    lake = Lake(len(lines[0]), len(lines), holes, cells.index(START), cells.index(GOAL), slippery)
    if distance(lake) is None:
        raise DataError("no way leads from the start of the frozen lake to its goal")
    return lake


def distance(lake: Lake) -> int | None:
    """Steps from start to goal on ice that is not slippery; `None` where no way leads there."""
    seen, edge, steps = {lake.start}, {lake.start}, 0
    while edge:
        if lake.goal in edge:
            return steps
        edge = {step_to(lake, cell, name) for cell in edge for name in ORDER} - seen - lake.holes
        seen |= edge
        steps += 1
    return None
