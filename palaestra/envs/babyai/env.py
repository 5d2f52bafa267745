"""The environment: one game of a BabyAI level, told in words."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from palaestra.envs.babyai.levels import begin, begin_of_split, check_level
from palaestra.envs.babyai.oracle import Oracle
from palaestra.envs.babyai.words import COMMANDS, WAIT, admissible, describe
from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError

if TYPE_CHECKING:
    from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

NOTHING_HAPPENS = "Nothing happens."


class Snapshot(NamedTuple):
    """An episode's state."""

    level: str
    seed: int
    game: RoomGridLevel
    """Nobody plays it: `restore` plays a copy."""
    actions: tuple[int, ...]
    success: bool
    score: float


class BabyAIEnv(Env[str, str]):
    """A BabyAI level as text: the agent reads what lies in its field of view and answers by one of six commands.

    A task's `params` hold `level` and either `split` and `index`, or the `seed` of one game; `max_turns` caps the
    episode instead of the level's own limit. Without a task, `reset` draws a training game of `level` from its seed.

    Reward is minigrid's: `1 - 0.9 * turn / max_turns` on the step that fulfils the mission, else 0.
    """

    def __init__(self, level: str = "GoToLocal") -> None:
        self.level = check_level(level)
        self._game: RoomGridLevel | None = None
        self._seed = 0
        self._playing_level = level
        self._actions: list[int] = []
        self._success, self._score = False, 0.0
        self._oracle: Oracle | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a game; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a game.
            UnknownNameError: there is no such level or split.
        """
        index = secrets.randbits(31) if seed is None else seed
        params = task.params if task is not None else {"level": self.level, "split": "train", "index": index}
        self._game, self._playing_level, self._seed = _begin(params)
        self._actions, self._success, self._score, self._oracle = [], False, 0.0, None
        text = f"Your task is to {self._game.mission}.\n{describe(self._game)}"
        return Reset(text, self._info(self._game, False))

    async def step(self, action: str) -> Step[str]:
        """Do one command. One that makes no sense here changes nothing, and takes a turn all the same."""
        game = self._playing
        command = action.strip().lower() if isinstance(action, str) else ""
        invalid = command not in admissible(game)
        taken = COMMANDS.get(command, WAIT)
        _, reward, terminated, truncated, _ = game.step(taken)
        self._actions.append(taken)
        self._success = bool(terminated) and float(reward) > 0
        self._score += float(reward)
        text = f"{NOTHING_HAPPENS}\n{describe(game)}" if invalid else describe(game)
        ended_by_limit = bool(truncated) and not terminated
        return Step(text, float(reward), bool(terminated), ended_by_limit, self._info(game, invalid))

    async def close(self) -> None:
        """Forget the game."""
        self._game = self._oracle = None

    async def snapshot(self) -> Snapshot:
        """The episode's state; takes a millisecond."""
        game = copy.deepcopy(self._playing)
        return Snapshot(self._playing_level, self._seed, game, tuple(self._actions), self._success, self._score)

    async def restore(self, state: Snapshot) -> None:
        """Continue from `state`, in this or any other instance."""
        self._game, self._oracle = copy.deepcopy(state.game), None
        self._playing_level, self._seed = state.level, state.seed
        self._success, self._score = state.success, state.score
        self._actions = list(state.actions)

    async def oracle(self) -> str:
        """The next command of BabyAI's bot, which knows no more than the agent has seen."""
        self._playing  # noqa: B018  # refuses before reset
        if self._oracle is None:
            self._oracle = Oracle(self._playing_level, self._seed)
        return self._oracle.advise(self._actions)

    async def render(self) -> str:
        """The whole grid, two letters a cell, the agent as an arrow."""
        game = self._playing
        return f"task: {game.mission}\n{game.pprint_grid()}"

    @property
    def _playing(self) -> RoomGridLevel:
        if self._game is None:
            raise EnvError("no game is being played; call reset() first")
        return self._game

    def _info(self, game: RoomGridLevel, invalid: bool) -> Info:
        return {
            "admissible_commands": admissible(game),
            "success": self._success,
            "invalid": invalid,
            "task_type": self._playing_level,
            "score": self._score,
        }


def _begin(params: Mapping[str, Any]) -> tuple[RoomGridLevel, str, int]:
    level = check_level(str(params.get("level")))
    if "seed" in params:
        seed = _number(params, "seed")
        game = begin(level, seed)
    else:
        game, seed = begin_of_split(level, str(params.get("split")), _number(params, "index"))
    if "max_turns" in params:
        game.max_steps = _number(params, "max_turns", least=1)
    return game, level, seed


def _number(params: Mapping[str, Any], name: str, least: int = 0) -> int:
    number = params.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number < 2**63:
        raise DataError(f"{name} of a babyai game is a whole number from {least}, not {number!r}")
    return number
