"""One match: the package's game, the agent's seat, and scripted players in the other seats."""

from __future__ import annotations

import copy
import math
import random
from itertools import chain
from typing import NamedTuple

from palaestra.envs.chance import Chance
from palaestra.envs.textarena.games import known_game
from palaestra.envs.textarena.moves import all_moves, draw, listed
from palaestra.envs.textarena.package import SUPPORTED, failure, open_game
from palaestra.errors import EnvError
from palaestra.seeds import derive_seed

_TRIES = 20_000
"""Moves that a scripted player draws before it gives up; most grammars have fewer."""
_MOVES_BETWEEN = 1_000
"""Most moves of the scripted players between two of the agent."""
_PATIENT = 10**9
"""Refused moves that a game allows a scripted player, whose draws need not be legal."""


class Turn(NamedTuple):
    """What the agent's move led to."""

    text: str
    """What its player has been told since."""
    reward: float
    done: bool
    invalid: bool
    """The game refused the move."""


class Match:
    """A match from its first prompt on. Each call leaves the global generators as they were."""

    def __init__(self, id: str, seed: int, seat: int | None = None) -> None:
        """Begin one.

        Args:
            id: of the game.
            seed: of everything that is drawn.
            seat: the agent's; by default the seeds take the seats in turn.

        Raises:
            EnvError, UnknownNameError: see `known_game` and `open_game`.
        """
        self.id, self.game = id, known_game(id)
        self.seat = seed % self.game.players if seat is None else seat
        self.done, self.invalid = False, False
        self._chance = Chance(derive_seed(seed, id))
        self._generator = random.Random(derive_seed(seed, id, "others"))
        with self._chance.lent():
            self._env = open_game(id, self.game.players, seed)
            self._others_move()
        self.text = self._told(self.seat)

    def copy(self) -> Match:
        """A match that goes on as this one would, apart from it."""
        twin = copy.copy(self)
        twin._env, twin._chance = copy.deepcopy(self._env), self._chance.copy()
        twin._generator = random.Random()
        twin._generator.setstate(self._generator.getstate())
        return twin

    def move(self, action: str) -> Turn:
        """The agent's move, and all moves until it is its turn again.

        A move on which the game itself fails loses.

        Raises:
            EnvError: textarena is of another version, or fails without the agent's doing.
        """
        with self._chance.lent():
            try:
                self.invalid = not self._accepts(action)
            except Exception as error:
                if not SUPPORTED.is_found:
                    raise SUPPORTED.misfit(error) from error
                self.done = self.invalid = True
                return Turn(f"The game could not understand it: {type(error).__name__}.", -1.0, True, True)
            self._others_move()
        self.text = self._told(self.seat)
        if not self.done:
            return Turn(self.text, 0.0, False, self.invalid)
        self.text = "\n".join(filter(None, [self.text, self._reason()]))
        return Turn(self.text, self._reward(), True, self.invalid)

    def legal(self) -> list[str] | None:
        """What the agent may do now, as the game lists it; `None` where it lists nothing."""
        return listed(self.text) if self.game.listed and not self.done else None

    def tried(self, most: int) -> list[str]:
        """Those of the first `most` moves of the grammar that the game accepts, each tried on a copy."""
        accepted, twin = [], None
        for move in [] if self.done else all_moves(self.game.moves)[:most]:
            twin = twin or self.copy()
            with twin._chance.lent():
                if twin._tries(move):
                    accepted.append(move)
                    twin = None
        return accepted

    def _accepts(self, action: str) -> bool:
        """Have the player whose turn it is do `action`; whether the game accepts it."""
        state = self._env.state
        before = state.error_count
        player = state.current_player_id
        done, _ = self._env.step(action)
        self.done = bool(done)
        return state.error_count <= before and not state.game_info[player]["invalid_move"]

    def _tries(self, action: str) -> bool:
        """`_accepts`, after which a refused action has left no trace."""
        state = self._env.state
        marks = {player: len(messages) for player, messages in state.observations.items()}
        logged, allowed = len(state.logs), state.error_allowance
        state.error_count, state.error_allowance = 0, _PATIENT
        try:
            if self._accepts(action):
                return True
        except Exception:  # a move on which the game fails is none
            self.done = False
        finally:
            state.error_allowance = allowed
        state.error_count = 0
        for player, length in marks.items():
            del state.observations[player][length:]
        del state.logs[logged:]
        return False

    def _others_move(self) -> None:
        """The scripted players move until it is the agent's turn, or the match is over."""
        for _ in range(_MOVES_BETWEEN):
            if self.done or self._env.state.current_player_id == self.seat:
                return
            self._other_moves()
        raise EnvError(f"textarena's {self.id} gave the agent no turn within {_MOVES_BETWEEN} moves")

    def _other_moves(self) -> None:
        state = self._env.state
        legal = listed(self._told(state.current_player_id)) if self.game.listed else []
        self._generator.shuffle(legal)
        drawn = (draw(self.game.moves, self._generator) for _ in range(_TRIES))
        if any(map(self._tries, chain(legal, drawn))):
            return
        state.error_allowance = 0
        try:
            self._accepts("[]")
        except Exception as error:
            raise failure(self.id, error) from error

    def _told(self, player: int) -> str:
        """What a player has been told since it was last asked, without its own words."""
        state = self._env.state
        messages, state.observations[player] = state.observations[player], []
        lines = []
        for sender, message, kind in messages:
            if sender == -1:
                lines.append(str(message))
            elif sender != player or kind.name != "PLAYER_ACTION":
                lines.append(f"[{state.role_mapping.get(sender, f'Player {sender}')}] {message}")
        return "\n".join(lines)

    def _reason(self) -> str:
        """Why the match is over, which games seldom tell their players."""
        return str(self._env.state.game_info[self.seat].get("reason") or "")

    def _reward(self) -> float:
        """What the game pays. Three games give a sentence as the reward of a refused move, which counts as -1."""
        reward = (self._env.state.rewards or {}).get(self.seat, 0.0)
        return float(reward) if isinstance(reward, int | float) and math.isfinite(reward) else -1.0
