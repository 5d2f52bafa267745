"""The oracle: TextWorld's own plan where it has one, else the game's walkthrough, found out on a twin of the game."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from palaestra.envs.textworld.story import Story
from palaestra.envs.walkthrough import Done, advise

LOST = "look"
"""Said where no plan is known."""
_MOVE = "go "


class Oracle:
    """Advises on one game, which it plays again: asking it changes nothing in the game itself."""

    def __init__(self, game: Path) -> None:
        self._twin = Story(game, advising=True)
        self._turn = self._twin.begin()
        self._watched = 0
        self._done: list[Done] = []
        """What was done, and what of the walkthrough was taken to be."""
        self._skip()

    def advise(self, commands: Sequence[str]) -> str:
        """The next command after `commands`, which are all that were done since the start."""
        for command in commands[self._watched :]:
            self._turn = self._twin.do(command)
            self._done.append(Done(command, command.startswith(_MOVE) and self._turn.understood))
            self._skip()
        self._watched = len(commands)
        if self._turn.won or self._turn.lost:
            return LOST
        planned = next(iter(self._twin.policy), None)
        return planned if planned in self._turn.admissible else self._from_walkthrough()

    def close(self) -> None:
        """Free the twin."""
        self._twin.close()

    def _from_walkthrough(self) -> str:
        planned = self._planned()
        if planned is None or planned in self._turn.admissible:
            return planned or LOST
        return next(self._openings("" if planned.startswith(_MOVE) else planned), LOST)

    def _skip(self) -> None:
        """Take what the walkthrough says next to be done already, where it cannot be done and nothing is in the way."""
        while (planned := self._planned()) is not None and planned not in self._turn.admissible:
            if planned.startswith(_MOVE) or next(self._openings(planned), None):
                return
            self._done.append(Done(planned, False))

    def _openings(self, planned: str) -> Iterator[str]:
        """Commands that open what `planned` ends with: `open fridge` for `take onion from fridge`."""
        opening = "open "
        return (
            command
            for command in self._turn.admissible
            if command.startswith(opening) and (not planned or planned.endswith(command.removeprefix(opening)))
        )

    def _planned(self) -> str | None:
        return advise(self._twin.walkthrough, self._done, _MOVE)
