"""The environment: one TextWorldExpress game, its reward the rise of its score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.history import fresh_seed
from palaestra.envs.tasks import Task
from palaestra.envs.textworld_express.simulator import Setting, Simulator, Turn, borrow, give_back, setting, solution
from palaestra.envs.walkthrough import Done, advise
from palaestra.errors import DataError, EnvError, UnknownNameError
from palaestra.seeds import derive_seed

MAX_TURNS = 100
"""The package's usual limit of an episode."""
FOLDS = {"train": ("train", 0), "validation": ("dev", 10_000), "test": ("test", 20_000)}
"""Split -> the package's name of it, and its first seed."""
PER_SPLIT = 1000
"""Games of each split, as the package counts its seeds."""


class TextWorldExpressEnv(Env[str, str]):
    """One of TextWorldExpress's eight games.

    A task's `params` hold `game`, `split` and `index` (below 1000), `params` (the game's own, `numLocations` for
    example, as whole numbers) and `max_turns`. Without a task, `reset` draws a training game of `game` from its seed.

    Reward is the rise of the score, so that rewards add up to `info["score"]`, which is at most 1 and in some games
    falls to -1 by one mistake. Success or failure of the task terminates the episode. The game has no randomness.
    """

    def __init__(self, game: str = "coin", params: Mapping[str, int] | None = None) -> None:
        self.game = game
        self.params = dict(params or {})
        setting(game, self.params, "train", 0)  # refuses early
        self._simulator: Simulator | None = None
        self._setting: Setting | None = None
        self._turn: Turn | None = None
        self._done: list[Done] = []
        self._max_turns = MAX_TURNS

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a game; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a game.
            EnvError: the game refuses them, or there is no Java.
            MissingExtraError: textworld-express is not installed.
            WorkerError: Java's process is gone; the next `reset` starts another.
        """
        params = task.params if task is not None else self._drawn(seed)
        wanted, self._max_turns = _setting(params), _whole(params, "max_turns", MAX_TURNS, least=1)
        self._turn = None  # stays, should this fail
        if self._simulator is not None and not self._simulator.suits(wanted.game):
            self._drop()
        self._simulator = simulator = self._simulator or borrow(wanted)
        turn = simulator.begin(wanted)
        self._setting, self._turn, self._done = wanted, turn, []
        return Reset(f"{simulator.task()}\n\n{turn.observation.strip()}", self._info(turn, False))

    async def step(self, action: str) -> Step[str]:
        """Do one command. One that the game does not know is answered by it, and marked invalid."""
        before, command = self._playing, action.strip() if isinstance(action, str) else ""
        assert self._simulator is not None
        self._turn = turn = self._simulator.step(command.encode("utf-8", "replace").decode())
        self._done.append(Done(command, _place(turn) != _place(before)))
        terminated = turn.tasksuccess or turn.taskfailure
        truncated = not terminated and len(self._done) >= self._max_turns
        info = self._info(turn, command not in before.admissible)
        return Step(turn.observation.strip(), turn.score - before.score, terminated, truncated, info)

    async def close(self) -> None:
        """Forget the game. Java goes on, for other instances, until this process ends."""
        self._drop()

    async def oracle(self) -> str:
        """The next command of the package's own solution; first the way back, for who has walked away from it."""
        self._playing  # noqa: B018  # refuses before reset
        assert self._setting is not None
        command = advise(solution(self._setting), self._done, "move ") or "look around"
        if self._done and self._done[-1] == (command, False) and command.startswith("move "):
            return command.replace("move ", "open door to ", 1)
        return command

    async def render(self) -> str:
        """The task and the place as it is now."""
        assert self._setting is not None
        return f"{self._setting.game}, score {self._playing.score:g}\n{self._playing.look.strip()}"

    def _drop(self) -> None:
        simulator, self._simulator, self._turn = self._simulator, None, None
        if simulator is not None:
            give_back(simulator)

    def _drawn(self, seed: int | None) -> dict[str, Any]:
        seed = fresh_seed(None) if seed is None else seed
        index = derive_seed(seed, "textworld-express") % PER_SPLIT
        return {"game": self.game, "split": "train", "index": index, "params": self.params}

    @property
    def _playing(self) -> Turn:
        if self._turn is None:
            raise EnvError("no game is being played; call reset() first")
        return self._turn

    def _info(self, turn: Turn, invalid: bool) -> Info:
        assert self._setting is not None
        return {
            "admissible_commands": sorted(turn.admissible),
            "success": turn.tasksuccess,
            "invalid": invalid,
            "task_type": self._setting.game,
            "score": turn.score,
        }


def _place(turn: Turn) -> str:
    """The first sentence of a look, which names the place."""
    return turn.look.partition(".")[0]


def _setting(params: Mapping[str, Any]) -> Setting:
    split, own = params.get("split"), params.get("params", {})
    if split not in FOLDS:
        raise UnknownNameError("split of textworld-express", str(split), FOLDS)
    if not isinstance(own, Mapping):
        raise DataError(f"params of a textworld-express game map names to whole numbers, they are not {own!r}")
    fold, first = FOLDS[split]
    return setting(str(params.get("game")), own, fold, first + _whole(params, "index", None, below=PER_SPLIT))


def _whole(params: Mapping[str, Any], name: str, default: int | None, *, least: int = 0, below: int = 2**31) -> int:
    number = params.get(name, default)
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number < below:
        raise DataError(f"{name} of a textworld-express game is a whole number from {least}, not {number!r}")
    return number
