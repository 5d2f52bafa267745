"""The environment: one lake, shown as text after every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.frozenlake.generate import LEVELS, generate
from palaestra.envs.frozenlake.lake import Lake, admissible, outcomes, parse
from palaestra.envs.frozenlake.oracle import advise
from palaestra.envs.grids import NOTHING_HAPPENS, directions
from palaestra.envs.history import fresh_seed
from palaestra.envs.params import whole
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError
from palaestra.seeds import derive_seed

MAX_TURNS = 100
"""Steps of an episode on a map of the user's."""
OURS = "a frozenlake task"
LEGEND = (
    "Walk over the ice to the goal and fall into no hole. P is you, _ the ice, O a hole, G the goal. "
    "X is you in a hole, √ you at the goal."
)
SLIPPERY = " The ice is slippery: only one step of three goes where you want, the others to either side of it."


class Snapshot(NamedTuple):
    """An episode's state."""

    lake: Lake
    cell: int
    kind: str
    seed: int
    """Of slipping."""
    turns: int
    max_turns: int


class FrozenLakeEnv(Env[str, str]):
    """Reach the goal over the ice.

    A task's `params` hold `level`, `split` and `index`, or a `map` of Gymnasium's letters with `slippery`; and perhaps
    `max_turns`. Without a task, `reset` draws a training map of `level` from its seed. Slipping is drawn from the seed
    of the episode.

    Reward is 1 on the step that reaches the goal, else 0. A hole ends the episode.
    """

    def __init__(self, level: str = "4x4") -> None:
        self.level = level
        self._lake: Lake | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin at the start; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a lake.
            UnknownNameError: no such level or split.
        """
        self._seed = fresh_seed(task) if seed is None else seed
        index = derive_seed(self._seed, "frozenlake")
        params = task.params if task is not None else {"level": self.level, "split": "train", "index": index}
        lake, limit = _begin(params)
        self._max_turns = whole(params, "max_turns", OURS, default=limit, least=1)
        self._lake, self._cell, self._turns = lake, lake.start, 0
        self._kind = str(params.get("level", "own"))
        first = f"{LEGEND}{SLIPPERY if lake.slippery else ''}\nActions: up, down, left, right.\n"
        return Reset(first + self._shown(), self._info(False))

    async def step(self, action: str) -> Step[str]:
        """Take one step. What makes no sense here changes nothing and takes a turn."""
        lake = self._playing
        (name,) = directions(action) or [""]
        invalid = name not in admissible(lake, self._cell)
        if not invalid:
            there = outcomes(lake, self._cell, name)
            self._cell = there[derive_seed(self._seed, "slip", self._turns) % len(there)]
        self._turns += 1
        won, lost = self._cell == lake.goal, self._cell in lake.holes
        text = f"{NOTHING_HAPPENS}\n{self._shown()}" if invalid else self._shown()
        truncated = self._turns >= self._max_turns and not (won or lost)
        return Step(text, float(won), won or lost, truncated, self._info(invalid))

    async def close(self) -> None:
        """Forget the lake."""
        self._lake = None

    async def snapshot(self) -> Snapshot:
        """The episode's state; takes a microsecond."""
        return Snapshot(self._playing, self._cell, self._kind, self._seed, self._turns, self._max_turns)

    async def restore(self, state: Snapshot) -> None:
        """Continue from `state`, in this or any other instance."""
        self._lake, self._cell, self._kind, self._seed, self._turns, self._max_turns = state

    async def oracle(self) -> str:
        """The step of the best policy, which knows the lake but not how it will slip."""
        return advise(self._playing, self._cell, max(self._max_turns - self._turns, 1))

    async def render(self) -> str:
        """The lake, and how far the episode is."""
        shown = self._shown()
        return f"step {self._turns} of {self._max_turns}\n{shown}"

    @property
    def _playing(self) -> Lake:
        if self._lake is None:
            raise EnvError("no lake is being played; call reset() first")
        return self._lake

    def _shown(self) -> str:
        lake = self._playing
        cells = ["_"] * (lake.width * lake.height)
        for hole in lake.holes:
            cells[hole] = "O"
        cells[lake.goal] = "G"
        cells[self._cell] = "X" if self._cell in lake.holes else "√" if self._cell == lake.goal else "P"
        return "\n".join("".join(cells[i : i + lake.width]) for i in range(0, len(cells), lake.width))

    def _info(self, invalid: bool) -> Info:
        lake = self._playing
        success = self._cell == lake.goal
        return {
            "admissible_commands": admissible(lake, self._cell),
            "success": success,
            "invalid": invalid,
            "task_type": self._kind,
            "score": float(success),
        }


def _begin(params: Mapping[str, Any]) -> tuple[Lake, int]:
    """The lake, and the level's limit of steps."""
    if "map" not in params:
        level = str(params.get("level"))
        lake = generate(level, str(params.get("split")), whole(params, "index", OURS))
        return lake, LEVELS[level].max_turns
    slippery = params.get("slippery", False)
    if not isinstance(slippery, bool):
        raise DataError(f"slippery of {OURS} is true or false, not {slippery!r}")
    return parse(params["map"], slippery), MAX_TURNS
