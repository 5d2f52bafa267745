"""The environment: one ScienceWorld task, its reward the rise of its score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.history import fresh_seed
from palaestra.envs.scienceworld.pool import POOL
from palaestra.envs.scienceworld.simulator import Simulator, Turn
from palaestra.envs.scienceworld.solution import Done, advise, solution
from palaestra.envs.scienceworld.tasks import ALL, EASY, Setting, of_params, setting, variations
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError
from palaestra.seeds import derive_seed

MAX_TURNS = 100
"""The package's usual limit of an episode."""


class ScienceWorldEnv(Env[str, str]):
    """One of ScienceWorld's 30 types of task, in one of its variations.

    A task's `params` hold `task`, `variation`, `simplifications` (`easy` unless given; names with commas between),
    `admissible` and `max_turns`. Without a task, `reset` draws a training variation of `task` from its seed.

    Reward is the rise of the score, so that rewards add up to `info["score"]`: 1 is success, and a focus on the wrong
    thing ends the episode at -1. `info` has the place (`look`) and the `inventory` too.
    """

    def __init__(self, task: str = ALL, simplifications: str = EASY, admissible: bool = True) -> None:
        """
        Args:
            task: type of task, or `all`.
            simplifications: the package's.
            admissible: whether every turn lists the package's valid actions, a thousand or more, which takes several
                times as long as the step.

        Raises:
            UnknownNameError: no such task or simplification.
        """
        self._drawable = variations(task, "train")
        setting(*self._drawable[0], simplifications)  # refuses early
        self.simplifications, self.admissible = simplifications, admissible
        self._lists = admissible
        self._simulator: Simulator | None = None
        self._setting: Setting | None = None
        self._turn: Turn | None = None
        self._done: list[Done] = []
        self._max_turns = MAX_TURNS

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin an episode; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe one.
            EnvError: there is no Java, or it does not start.
            MissingExtraError: scienceworld is not installed.
            WorkerError: Java's process is gone; the next `reset` starts another.
        """
        params = task.params if task is not None else self._drawn(seed)
        wanted = of_params(params)
        self._max_turns, self._lists = _limit(params), _yes_no(params, "admissible", self.admissible)
        self._turn = None  # stays, should this fail
        if self._simulator is not None and not self._simulator.jvm.alive:
            self._drop()
        self._simulator = simulator = self._simulator or POOL.borrow()
        turn = simulator.begin(wanted)
        self._setting, self._turn, self._done = wanted, turn, []
        return Reset(turn.text.strip(), self._info(turn, False))

    async def step(self, action: str) -> Step[str]:
        """Do one command. One that is not understood is answered, and marked invalid."""
        before, command = self._playing, " ".join(action.split()) if isinstance(action, str) else ""
        assert self._simulator is not None
        turn = self._simulator.step(command.encode("utf-8", "replace").decode(), before)
        self._turn = turn
        self._done.append(Done(command, before.place, turn.place, not (turn.refused or turn.asks)))
        truncated = not turn.over and len(self._done) >= self._max_turns
        info = self._info(turn, turn.refused)
        return Step(turn.text.strip(), (turn.score - before.score) / 100, turn.over, truncated, info)

    async def close(self) -> None:
        """Forget the episode. Java goes on, for other instances, until this process ends."""
        self._drop()

    async def oracle(self) -> str:
        """The next command of the package's own solution; first the way back, for who has walked away from it."""
        self._playing  # noqa: B018  # refuses before reset
        assert self._setting is not None
        return advise(solution(self._setting), self._done, self._setting)

    async def render(self) -> str:
        """The place as it is now, and what the agent carries."""
        turn = self._playing
        assert self._setting is not None
        return f"{self._setting.task}, score {turn.score}\n{turn.look.strip()}\n{turn.inventory.strip()}"

    def _drop(self) -> None:
        simulator, self._simulator, self._turn = self._simulator, None, None
        if simulator is not None:
            POOL.give_back(simulator)

    def _drawn(self, seed: int | None) -> dict[str, Any]:
        seed = fresh_seed(None) if seed is None else seed
        task, variation = self._drawable[derive_seed(seed, "scienceworld") % len(self._drawable)]
        return {"task": task, "variation": variation, "simplifications": self.simplifications}

    @property
    def _playing(self) -> Turn:
        if self._turn is None:
            raise EnvError("no episode is being played; call reset() first")
        return self._turn

    def _info(self, turn: Turn, invalid: bool) -> Info:
        assert self._setting is not None
        assert self._simulator is not None
        info = {
            "success": turn.score >= 100,
            "invalid": invalid,
            "task_type": self._setting.task,
            "score": turn.score / 100,
            "look": turn.look.strip(),
            "inventory": turn.inventory.strip(),
        }
        if self._lists:
            info["admissible_commands"] = self._simulator.admissible()
        return info


def _limit(params: Mapping[str, Any]) -> int:
    number = params.get("max_turns", MAX_TURNS)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise DataError(f"max_turns of scienceworld is a whole number from 1, not {number!r}")
    return number


def _yes_no(params: Mapping[str, Any], name: str, default: bool) -> bool:
    value = params.get(name, default)
    if not isinstance(value, bool):
        raise DataError(f"{name} of scienceworld is true or false, not {value!r}")
    return value
