"""Following the known solution of a game of rooms, and finding back to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


class Done(NamedTuple):
    """A command that was done."""

    command: str
    moved: bool
    """Whether it led to another place."""


def advise(solution: Sequence[str], done: Sequence[Done], move: str) -> str | None:
    """The next command of the solution after `done`; first the way back, for who has left its path.

    The solution's commands count in their order, except during a detour. A detour is a walk away; other commands beside
    the solution are taken to be harmless, which they are not in every game.

    Args:
        solution: the commands that solve the game from its start.
        done: everything done since then.
        move: how commands that lead elsewhere begin, `"go "` for example; a direction follows.

    Returns:
        A command, or `None` where the solution has come to its end.
    """
    following, back = 0, list[str]()
    for command, moved in done:
        walk = command.startswith(move)
        if walk and not moved:
            continue
        if back and command == back[-1]:
            back.pop()
        elif not back and following < len(solution) and command == solution[following]:
            following += 1
        elif walk:
            direction = command.removeprefix(move)
            back.append(move + OPPOSITE.get(direction, direction))
    return back[-1] if back else (*solution, None)[following]
