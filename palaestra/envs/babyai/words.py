"""What the agent sees and may do, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

COMMANDS = {"turn left": 0, "turn right": 1, "go forward": 2, "pick up": 3, "drop": 4, "toggle": 5}
"""Command -> minigrid's action. `toggle` opens and closes doors, unlocks with a key in the hand, and opens boxes."""
WAIT = 6
"""Minigrid's action that changes nothing and takes a turn."""
NAMES = {action: command for command, action in COMMANDS.items()}

_DOORS = {0: "an open", 1: "a closed", 2: "a locked"}


def describe(game: RoomGridLevel) -> str:
    """What lies in the agent's field of view, nearest first, and what it carries.

    Walls are named where they end the view straight ahead, to the left and to the right.
    """
    grid, visible = game.gen_obs_grid()
    middle, last = grid.width // 2, grid.height - 1
    things = []
    for i in range(grid.width):
        for j in range(grid.height):
            thing, right, ahead = grid.get(i, j), i - middle, last - j
            if thing is not None and visible[i, j] and (right or ahead) and thing.type not in ("wall", "floor"):
                things.append((ahead + abs(right), ahead, right, _name(thing)))
    walls = [(*wall, "a wall") for wall in _walls(grid, visible, middle, last)]
    seen = [f"{name} {_where(ahead, right)}" for _, ahead, right, name in [*sorted(things), *walls]]
    carried = f"\nYou carry {_name(game.carrying)}." if game.carrying else ""
    return f"You see {', '.join(seen) or 'nothing'}.{carried}"


def _walls(grid: Any, visible: Any, middle: int, last: int) -> list[tuple[int, int, int]]:
    """(distance, ahead, right) of the first wall straight ahead, to the left and to the right, where it is seen."""
    found = []
    for ahead, right in ((1, 0), (0, -1), (0, 1)):
        for steps in range(1, max(middle, last) + 1):
            i, j = middle + right * steps, last - ahead * steps
            if not (0 <= i < grid.width and 0 <= j < grid.height and visible[i, j]):
                break
            thing = grid.get(i, j)
            if thing is not None and thing.type == "wall":
                found.append((steps, ahead * steps, right * steps))
                break
    return found


def admissible(game: RoomGridLevel) -> list[str]:
    """The commands that would change something now."""
    ahead = game.grid.get(*game.front_pos)
    possible = {
        "turn left": True,
        "turn right": True,
        "go forward": ahead is None or ahead.can_overlap(),
        "pick up": ahead is not None and ahead.can_pickup() and game.carrying is None,
        "drop": ahead is None and game.carrying is not None,
        "toggle": ahead is not None and _toggles(ahead, game.carrying),
    }
    return [command for command, now in possible.items() if now]


def _toggles(thing: Any, carried: Any) -> bool:
    if thing.type == "door" and thing.is_locked:
        return carried is not None and carried.type == "key" and carried.color == thing.color
    return thing.type in ("door", "box")


def _name(thing: Any) -> str:
    article = _DOORS[thing.encode()[2]] if thing.type == "door" else "a"
    return f"{article} {thing.color} {thing.type}"


def _where(ahead: int, right: int) -> str:
    sideways = _steps(abs(right), "right" if right > 0 else "left")
    return " and ".join(filter(None, (_steps(ahead, "forward"), sideways)))


def _steps(n: int, direction: str) -> str:
    return f"{n} step{'s' * (n > 1)} {direction}" if n else ""
