"""The environments of gem-llm 0.1.0, and which cannot be played here and why.

A level is the package's id with a slash for the colon: `game/Sokoban-v0-easy`, `rg/leg_counting`.
"""

from __future__ import annotations

from palaestra.envs.reasoning.generators import OFFERED
from palaestra.envs.reasoning.generators import REFUSED as UNFAIR
from palaestra.errors import EnvError, UnknownNameError

_NAMES = """
    FifteenPuzzle-v0-easy FifteenPuzzle-v0-hard Game2048-v0-easy Game2048-v0-extreme-hard Game2048-v0-hard
    Game2048-v0-random GuessTheNumber-v0-easy GuessTheNumber-v0-hard GuessTheNumber-v0-random Mastermind-v0-easy
    Mastermind-v0-hard Mastermind-v0-random Minesweeper-v0-easy Minesweeper-v0-hard Minesweeper-v0-random
    Sokoban-v0-easy Sokoban-v0-hard Sokoban-v0-random Sudoku-v0-easy Sudoku-v0-hard Sudoku-v0-random
    TowerofHanoi-v0-easy TowerofHanoi-v0-hard TowerofHanoi-v0-random
"""
_UNFIT = {
    "boxnet": "the package cannot seed it",
    "path_star": "its reasoning-gym is older than that",
    **dict.fromkeys(
        ("isomorphic_strings", "polynomial_multiplication", "ransom_note"),
        "its questions differ from process to process",
    ),
}
"""Generators that this package's older reasoning-gym does not have, or cannot fix by a seed."""

LEVELS: tuple[str, ...] = (
    *(f"game/{name}" for name in _NAMES.split()),
    *(f"rg/{name}" for name in OFFERED if name not in _UNFIT),
)
"""Every level that can be played."""

DIRECTIONS = tuple(f"\\boxed{{{way}}}" for way in ("up", "down", "left", "right"))
_STEERED = ("game/Sokoban", "game/FifteenPuzzle", "game/Game2048")

_NLTK = "it downloads NLTK's word lists while it is imported"
_HUB = "it loads its data set from the Hugging Face hub"
_REFUSED = {
    "game/Wordle": _NLTK,
    "game/Hangman": _NLTK,
    "game/WordSearch": _NLTK,
    "game/Crosswords": "it needs pandas, which the package does not bring",
    "game/FifteenPuzzle-v0-random": "it fails in the package itself",
    "math/": _HUB,
    "code/": _HUB,
    "logic/": _HUB,
    "qa/": _HUB,
    "eval/": _HUB,
    **{f"rg/{name}": reason for name, reason in {**_UNFIT, **UNFAIR}.items()},
}
"""How levels that cannot be played begin, and why not."""


def refusal(level: str) -> str | None:
    """Why a level of the package cannot be played; `None` where nothing is against it."""
    if level in LEVELS:
        return None
    begins = (why for begin, why in _REFUSED.items() if level.startswith(begin))
    return _REFUSED.get(level) or next(begins, None)


def known_level(level: str) -> str:
    """`level` itself.

    Raises:
        EnvError: it cannot be played here; the message says why.
        UnknownNameError: there is no such level.
    """
    if level in LEVELS:
        return level
    reason = refusal(level)
    if reason is not None:
        raise EnvError(f"gem's {level} cannot be played: {reason}")
    raise UnknownNameError("level of gem", level, LEVELS)


def commands(level: str) -> list[str] | None:
    """All commands of a level whose player goes in four directions; `None` for every other."""
    return list(DIRECTIONS) if level.startswith(_STEERED) else None
