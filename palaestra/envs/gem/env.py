"""The environment: one game or question of gem-llm, for the interpreter that has the package."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from palaestra.envs.chance import Chance
from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.gem.games import commands, known_level
from palaestra.envs.tasks import Task
from palaestra.envs.versions import Supported
from palaestra.errors import EnvError, MissingExtraError, require
from palaestra.seeds import derive_seed

SUPPORTED = Supported("gem-llm", "0.1.0")
LONGEST = 20_000
"""Characters of an answer that is shown to a game."""
_WON = 1 - 1e-6
"""Score from which on an episode counts as solved: in some games, 1 is a sum of fractions."""


class GemEnv(Env[str, str]):
    """An environment of gem-llm: games of many turns, and reasoning-gym's questions of one.

    The agent answers in `\\boxed{...}`. An observation is what the package says, followed by its suffix: the board, or
    what to do next. A task's `params` hold `level`.
    """

    def __init__(self, level: str = "game/Sokoban-v0-easy") -> None:
        """Make it for a level, the package's id with a slash for the colon.

        Raises:
            EnvError: the level cannot be played here; the message says why.
            UnknownNameError: there is no such level.
        """
        self.level = known_level(level)
        self._game: Any = None
        self._playing_level, self._chance, self._score = level, Chance(0), 0.0

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a game; see `Env.reset`.

        Raises:
            EnvError: the level cannot be played here, or gem-llm is of another version.
            MissingExtraError: gem-llm is not installed where this runs.
        """
        level = known_level(str(task.params.get("level", self.level)) if task is not None else self.level)
        seed = task.seed if seed is None and task is not None else seed
        seed = derive_seed(secrets.randbits(31) if seed is None else seed, level) % 2**31
        self._game, self._playing_level, self._score = None, level, 0.0
        self._chance = Chance(seed)
        try:
            with self._chance.lent():
                require("gem", "gem")
                # A question's seed is that of its generator, because all instances would else draw from one short list.
                asked = {"seed": seed, "size": 2} if level.startswith("rg/") else {}
                game = import_module("gem").make(level.replace("/", ":", 1), **asked)
                said, info = game.reset(seed=seed)
            text = _text(said, info)
        except MissingExtraError:
            raise
        except Exception as error:
            raise _failure(level, error) from error
        self._game = game
        return Reset(text, self._info(False, False))

    async def step(self, action: str) -> Step[str]:
        """Answer. What the game cannot read is marked invalid, and costs what the game says.

        An answer on which the package itself fails ends the episode and pays nothing.

        Raises:
            EnvError: gem-llm is of another version.
        """
        if self._game is None:
            raise EnvError("no game is being played; call reset() first")
        answer = action.encode(errors="replace").decode() if isinstance(action, str) else ""
        if len(answer) > LONGEST:
            text = f"Your answer has {len(answer)} characters; the game reads at most {LONGEST}."
            return Step(text, 0.0, True, False, self._info(True, True))
        try:
            with self._chance.lent():
                said, paid, terminated, truncated, info = self._game.step(answer)
            reward, text = float(paid), _text(said, info)
        except Exception as error:
            if not SUPPORTED.is_found:
                raise SUPPORTED.misfit(error) from error
            text = f"The game could not understand it: {type(error).__name__}."
            return Step(text, 0.0, True, False, self._info(True, True))
        if not math.isfinite(reward):
            raise SUPPORTED.misfit(f"a reward of {reward}")
        self._score += reward
        won = self._score >= _WON
        # A game that reaches its limit of turns says both; a question says both when it is answered.
        limited = bool(truncated) and not won and not self._playing_level.startswith("rg/")
        done = bool(terminated) and not limited
        return Step(text, reward, done, limited, self._info(reward < 0, done))

    async def close(self) -> None:
        """Forget the game."""
        self._game = None

    def _info(self, invalid: bool, done: bool) -> Info:
        info: Info = {
            "success": done and self._score >= _WON,
            "invalid": invalid,
            "score": self._score,
            "task_type": self._playing_level,
        }
        listed = commands(self._playing_level)
        return info if listed is None else {**info, "admissible_commands": listed}


def _text(said: str, info: Mapping[str, Any]) -> str:
    """What the package says. Its sign for the end is none of the agent's words."""
    if not isinstance(said, str):
        raise TypeError(f"an observation is a {type(said).__name__}")
    if said == import_module("gem.utils.constants").TERMINAL_STATE:
        said = "The answer is in."
    return "\n".join(filter(None, [said, str(info.get("suffix") or "")]))


def _failure(level: str, error: Exception) -> EnvError:
    if SUPPORTED.is_found:
        return EnvError(f"gem's {level} failed: {type(error).__name__}: {str(error)[:200]}")
    return SUPPORTED.misfit(error)
