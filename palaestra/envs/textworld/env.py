"""The environment: one TextWorld game, its reward the rise of its score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.history import fresh_seed
from palaestra.envs.tasks import Task
from palaestra.envs.textworld.files import checked
from palaestra.envs.textworld.oracle import Oracle
from palaestra.envs.textworld.recipe import LEVEL, SIZES, Recipe, check_names, of_challenge, of_level
from palaestra.envs.textworld.shelf import game_file
from palaestra.envs.textworld.story import Story, Turn
from palaestra.errors import DataError, EnvError

MAX_TURNS = 100


class TextWorldEnv(Env[str, str]):
    """A TextWorld game: one of a level, one of a challenge by its settings, or a game file.

    A task's `params` hold `level`, `split` and `index`; or `challenge`, `settings` and `seed`; or `path`, of a `.z8`
    file with its `.json` beside it; and `max_turns`. Without a task, `reset` draws from its seed one of the first
    `games` training games of `level`. The first `reset` of a generated game makes it, which takes seconds; after that
    it comes from the cache.

    Reward is the rise of the score, so that rewards add up to `info["score"]`; `info["max_score"]` is all there is. The
    game itself has no randomness.
    """

    def __init__(self, level: str = LEVEL, games: int = SIZES["train"]) -> None:
        check_names(level, "train")
        if not 1 <= games <= SIZES["train"]:
            raise EnvError(f"games is {games}; it is a number from 1 to {SIZES['train']}")
        self.level, self.games = level, games
        self._story: Story | None = None
        self._turn: Turn | None = None
        self._commands: list[str] = []
        self._oracle: Oracle | None = None
        self._max_turns = MAX_TURNS
        self._kind = level

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a game; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a game, or its file is missing, truncated or damaged.
            EnvError: TextWorld cannot make the game.
            MissingExtraError: textworld is not installed.
        """
        params = task.params if task is not None else self._drawn(seed)
        self._max_turns = _whole(params, "max_turns", MAX_TURNS, least=1)
        game = checked(_text(params, "path") if "path" in params else game_file(_recipe(params)))
        self._turn = None  # stays, should this fail
        if self._story is None or self._story.game != game or "path" in params:  # a file may have changed
            self._drop()
            self._story = Story(game)
        self._drop_oracle()
        self._commands, self._kind = [], _kind(params)
        self._turn = turn = self._story.begin()
        return Reset(turn.text, self._info(turn, False))

    async def step(self, action: str) -> Step[str]:
        """Do one command, in any words that the game understands. What it refuses it says, and it is marked invalid."""
        before = self._playing
        assert self._story is not None
        command = " ".join(action.split()) if isinstance(action, str) else ""
        self._turn = turn = self._story.do(command)
        self._commands.append(command)
        ended = turn.won or turn.lost
        truncated = not ended and len(self._commands) >= self._max_turns
        info = self._info(turn, not turn.understood)
        return Step(turn.text, float(turn.score - before.score), ended, truncated, info)

    async def close(self) -> None:
        """Free the interpreter."""
        self._drop()

    async def oracle(self) -> str:
        """The next command of TextWorld's own plan or of the game's walkthrough; `look` where neither knows one."""
        self._playing  # noqa: B018  # refuses before reset
        assert self._story is not None
        if self._oracle is None:
            self._oracle = Oracle(self._story.game)
        return self._oracle.advise(self._commands)

    @property
    def _playing(self) -> Turn:
        if self._turn is None:
            raise EnvError("no game is being played; call reset() first")
        return self._turn

    def _drawn(self, seed: int | None) -> dict[str, Any]:
        index = (fresh_seed(None) if seed is None else seed) % self.games
        return {"level": self.level, "split": "train", "index": index}

    def _drop(self) -> None:
        story, self._story, self._turn = self._story, None, None
        if story is not None:
            story.close()
        self._drop_oracle()

    def _drop_oracle(self) -> None:
        oracle, self._oracle = self._oracle, None
        if oracle is not None:
            oracle.close()

    def _info(self, turn: Turn, invalid: bool) -> Info:
        assert self._story is not None
        return {
            "admissible_commands": turn.admissible,
            "success": turn.won,
            "invalid": invalid,
            "task_type": self._kind,
            "score": turn.score,
            "max_score": self._story.max_score,
        }


def _recipe(params: Mapping[str, Any]) -> Recipe:
    if "challenge" in params:
        settings = params.get("settings", {})
        if not isinstance(settings, Mapping):
            raise DataError(f"settings of a textworld game map names to values, they are not {settings!r}")
        return of_challenge(_text(params, "challenge"), settings, _whole(params, "seed", None))
    return of_level(_text(params, "level"), _text(params, "split"), _whole(params, "index", None))


def _kind(params: Mapping[str, Any]) -> str:
    if "path" in params:
        return Path(params["path"]).stem
    return str(params.get("challenge") or params.get("level"))


def _text(params: Mapping[str, Any], name: str) -> str:
    text = params.get(name)
    if not isinstance(text, str):
        raise DataError(f"{name} of a textworld game is a text, not {text!r}")
    return text


def _whole(params: Mapping[str, Any], name: str, default: int | None, *, least: int = 0) -> int:
    number = params.get(name, default)
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number < 2**31:
        raise DataError(f"{name} of a textworld game is a whole number from {least}, not {number!r}")
    return number
