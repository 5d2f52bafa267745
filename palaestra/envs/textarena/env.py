"""The environment: one match of a TextArena game, from one player's seat."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.params import whole
from palaestra.envs.tasks import Task
from palaestra.envs.textarena.games import known_game
from palaestra.envs.textarena.match import Match
from palaestra.errors import EnvError

LONGEST = 20_000
"""Characters of an action that a game is shown; the games look for moves in it by regular expressions."""
_TRIED = 5_000
"""Moves of a grammar that are tried at most, where admissible commands are asked for."""


class Snapshot(NamedTuple):
    """An episode's state."""

    match: Match
    """Nobody plays it: `restore` plays a copy."""
    turns: int
    max_turns: int
    score: float


class TextArenaEnv(Env[str, str]):
    """A game of TextArena. The other seats are played by scripted players, who draw moves until one is legal.

    An observation is what the agent's player has been told since its last move: the prompt first, then what the others
    did and the board. An action without brackets gets them. A task's `params` may hold `game`, `seat` and `max_turns`.
    """

    def __init__(self, game: str = "TicTacToe-v0", max_turns: int = 200, admissible: bool = False) -> None:
        """Make it.

        Args:
            game: the package's id, of the games that can be played.
            max_turns: of the agent, after which the episode is truncated.
            admissible: list the legal moves also where the game does not, by trying those of its grammar: slow.

        Raises:
            EnvError: the game cannot be played here; the message says why.
            UnknownNameError: there is no such game.
        """
        self.game, self.max_turns, self.admissible = game, max_turns, admissible
        known_game(game)
        self._match: Match | None = None
        self._turns, self._limit, self._score = 0, max_turns, 0.0

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a match; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a match.
            EnvError: the game cannot be played here, or textarena is of another version.
            MissingExtraError: textarena is not installed.
        """
        params = task.params if task is not None else {}
        seed = task.seed if seed is None and task is not None else seed
        game = str(params.get("game", self.game))
        players = known_game(game).players
        seat = whole(params, "seat", "a textarena game", most=players - 1) if "seat" in params else None
        self._limit = whole(params, "max_turns", "a textarena game", default=self.max_turns, least=1)
        self._match = Match(game, secrets.randbits(31) if seed is None else seed, seat)
        self._turns, self._score = 0, 0.0
        return Reset(self._match.text, self._info(self._match))

    async def step(self, action: str) -> Step[str]:
        """Take the agent's move. What the game refuses is marked invalid; most games forgive one in a row."""
        match = self._playing
        self._turns += 1
        written = _bracketed(action)
        if len(written) > LONGEST:
            match.invalid = True
            text = f"Your answer has {len(written)} characters; the game reads at most {LONGEST}."
            return Step(text, 0.0, False, self._turns >= self._limit, self._info(match))
        text, reward, done, _ = match.move(written)
        self._score += reward
        return Step(text, reward, done, not done and self._turns >= self._limit, self._info(match))

    async def close(self) -> None:
        """Forget the match."""
        self._match = None

    async def snapshot(self) -> Snapshot:
        """The episode's state; takes some tenths of a millisecond."""
        return Snapshot(self._playing.copy(), self._turns, self._limit, self._score)

    async def restore(self, state: Snapshot) -> None:
        """Continue from `state`, in this or any other instance."""
        self._match, self._turns = state.match.copy(), state.turns
        self._limit, self._score = state.max_turns, state.score

    @property
    def _playing(self) -> Match:
        if self._match is None:
            raise EnvError("no game is being played; call reset() first")
        return self._match

    def _info(self, match: Match) -> Info:
        info: Info = {
            "success": match.done and self._score >= 1,
            "invalid": match.invalid,
            "score": self._score,
            "task_type": match.id,
        }
        legal = match.legal() or (match.tried(_TRIED) if self.admissible else None)
        return info if legal is None else {**info, "admissible_commands": legal}


def _bracketed(action: object) -> str:
    """As the package's own formatting has it: what has no bracket is bracketed as a whole."""
    text = action.encode(errors="replace").decode() if isinstance(action, str) else ""
    return text if "[" in text or "]" in text else f"[{text.strip()}]"
