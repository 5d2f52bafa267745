"""One game being played: typed turns, and no command that does anything outside the game."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palaestra.errors import DataError, require

UNKNOWN = "That's not a verb I recognise."
"""TextWorld's own answer to what it does not know."""
LONGEST = 200
"""Characters of a command that the interpreter reads."""

_loading = threading.Lock()
"""Games are read by parsers that all threads share."""
_PLAIN = re.compile(r"[A-Za-z0-9 '\-]*")
"""A full stop or a comma would begin another command."""
_PROMPT = re.compile(r"\n>\s*(-= .* =-\s*-?\d+/\d+)?\s*$")
"""The interpreter's prompt and status line."""
_META = frozenset(
    (
        *("quit", "q", "restart", "restore", "save", "script", "transcript", "noscript", "verify", "version", "undo"),
        *("oops", "again", "g", "notify", "verbose", "brief", "superbrief", "normal", "long", "short", "actions"),
        *("showme", "showverb", "test", "trace", "scope", "tree", "relations", "rules"),
    )
)
"""Verbs of the interpreter and of its authors, some of which write files."""


class Turn(NamedTuple):
    """What the start or a command says."""

    text: str
    score: int
    admissible: list[str]
    """Sorted."""
    won: bool
    lost: bool
    understood: bool
    """Whether the command did what it says."""


class Story:
    """Plays a game file, which has been checked. Stories in several threads do not touch each other."""

    def __init__(self, game: Path, advising: bool = False) -> None:
        """Load it; `advising` also has TextWorld keep a plan.

        Raises:
            DataError: TextWorld cannot read it.
            MissingExtraError: textworld is not installed.
        """
        require("textworld", "textworld")
        from palaestra.envs.textworld.tracking import open_game

        self.game = game
        with _loading:
            try:
                self._env = open_game(game, advising)
            except Exception as error:
                raise DataError(f"TextWorld cannot read {game}: {type(error).__name__}: {error}") from error
        self._state: Any = None

    def begin(self) -> Turn:
        """Begin the game, or begin it again."""
        with _loading:
            self._state = state = self._env.reset()
        text = state.feedback
        at = text.find(state["objective"]) if state["objective"] else -1
        return self._turn(text[max(at, 0) :], True)  # before that comes a banner

    def do(self, command: str) -> Turn:
        """Do a command. Several at once, and those that are about the interpreter, are not known here."""
        if not _allowed(command):
            return self._turn(UNKNOWN, False)
        known = command in self._state["admissible_commands"]
        self._state, _, _ = self._env.step(command)
        return self._turn(self._state.feedback, known or " - succeeded]" in self._state.raw)

    def close(self) -> None:
        """Free the interpreter."""
        self._env.close()

    @property
    def max_score(self) -> int:
        """The score of the whole game."""
        return int(self._state["max_score"])

    @property
    def walkthrough(self) -> Sequence[str]:
        """Commands that win the game from its start, as its makers wrote them down; empty where they did not."""
        found = self._state["game"].metadata.get("walkthrough")
        return found if isinstance(found, list | tuple) else ()

    @property
    def policy(self) -> Sequence[str]:
        """Commands that TextWorld believes to win from here, if it is `advising` and believes any."""
        return self._state["policy_commands"] or ()

    def _turn(self, text: str, understood: bool) -> Turn:
        state = self._state
        return Turn(
            re.sub(r"\n{3,}", "\n\n", _PROMPT.sub("", text)).strip(),
            int(state["score"] or 0),
            list(state["admissible_commands"]),
            bool(state["won"]),
            bool(state["lost"]),
            understood,
        )


def _allowed(command: str) -> bool:
    words = command.lower().split()
    return (
        0 < len(command) <= LONGEST
        and _PLAIN.fullmatch(command) is not None
        and words[0] not in _META
        and not words[0].startswith("tw-")
        and "then" not in words
    )
