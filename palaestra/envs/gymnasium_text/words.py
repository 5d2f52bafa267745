"""What observations and actions of well-known environments are called. Everything else is told in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Won = Callable[[float, bool, float], bool]
"""Whether an episode is won, of the last reward, whether it was terminated, and the sum of rewards."""


@dataclass(frozen=True, slots=True)
class Words:
    """How one environment is told."""

    actions: tuple[str, ...]
    """By number."""
    goal: str
    """What to do, told once at the beginning."""
    describe: Callable[[Any, Any], str] = field(repr=False)
    """The text of an observation and the environment, without its wrappers."""
    won: Won = field(repr=False)


def _paid(least: float) -> Won:
    return lambda reward, terminated, score: terminated and reward >= least


def _scored(least: float) -> Won:
    return lambda reward, terminated, score: score >= least


def _arrived(reward: float, terminated: bool, score: float) -> bool:
    return terminated


def _numbers(*names: str) -> Callable[[Any, Any], str]:
    """Numbers by name, with four digits behind the point."""
    return lambda observation, env: ", ".join(
        f"{name} {float(value):.4f}" for name, value in zip(names, observation, strict=True)
    )


def _lake(observation: Any, env: Any) -> str:
    rows = [[cell.decode() for cell in row] for row in env.desc]
    y, x = divmod(int(observation), len(rows[0]))
    rows[y][x] = "@"
    return "\n".join(map("".join, rows)) + f"\nYou (@) are in row {y + 1}, column {x + 1}."


def _cliff(observation: Any, env: Any) -> str:
    height, width = env.shape
    rows = [["." if not env._cliff[y, x] else "C" for x in range(width)] for y in range(height)]
    rows[-1][-1] = "G"
    y, x = divmod(int(observation), width)
    rows[y][x] = "@"
    return "\n".join(map("".join, rows)) + f"\nYou (@) are in row {y + 1}, column {x + 1}."


_STANDS = ("R", "G", "Y", "B")


def _taxi(observation: Any, env: Any) -> str:
    row, column, passenger, destination = env.decode(int(observation))
    rows = [[cell.decode() for cell in line] for line in env.desc]
    rows[row + 1][2 * column + 1] = "@"
    where = "in the taxi" if passenger == len(_STANDS) else f"at {_STANDS[passenger]}"
    board = "\n".join(map("".join, rows))
    place = f"The taxi (@) is in row {row + 1}, column {column + 1}."
    return f"{board}\n{place} The passenger is {where} and wants to go to {_STANDS[destination]}."


def _hand(observation: Sequence[Any], env: Any) -> str:
    total, dealer, usable = (int(number) for number in observation)
    ace = ", with an ace that counts 11" if usable else ""
    return f"You hold {total}{ace}. The dealer shows {'an ace' if dealer == 1 else dealer}."


_WAYS = ("left", "down", "right", "up")
_LAKE = Words(
    _WAYS,
    "Walk over the frozen lake from S to the goal G; do not fall into a hole H. The ice may be slippery.",
    _lake,
    _paid(1.0),
)
_CLIFF = Words(
    ("up", "right", "down", "left"),
    "Walk to the goal G in few steps. Who steps off the cliff C pays 100 and begins again.",
    _cliff,
    _arrived,
)
WORDS: dict[str, Words] = {
    "FrozenLake-v1": _LAKE,
    "FrozenLake8x8-v1": _LAKE,
    "Taxi-v4": Words(
        ("south", "north", "east", "west", "pick up", "drop off"),
        "Fetch the passenger and drop them off where they want to go. Walls are |; : can be crossed.",
        _taxi,
        _paid(20.0),
    ),
    "Blackjack-v1": Words(
        ("stick", "hit"), "Come nearer to 21 than the dealer, without going over it.", _hand, _paid(1.0)
    ),
    "CliffWalking-v1": _CLIFF,
    "CliffWalkingSlippery-v1": _CLIFF,
    "CartPole-v1": Words(
        ("left", "right"),
        "Push the cart so that the pole stays upright.",
        _numbers("cart position", "cart velocity", "pole angle", "pole velocity"),
        _scored(475.0),
    ),
    "MountainCar-v0": Words(
        ("left", "nothing", "right"),
        "Drive the car up the hill on the right, to position 0.5. It has to gather speed.",
        _numbers("position", "velocity"),
        _arrived,
    ),
    "Acrobot-v1": Words(
        ("push clockwise", "nothing", "push counterclockwise"),
        "Swing the lower link of the two above the line.",
        _numbers("cos 1", "sin 1", "cos 2", "sin 2", "velocity 1", "velocity 2"),
        _arrived,
    ),
}
"""By id."""


def threshold(least: float | None) -> Won:
    """An environment that is won with its own reward threshold, if its author has named one."""
    return _scored(math.inf if least is None else least)
