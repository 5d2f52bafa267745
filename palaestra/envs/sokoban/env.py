"""The environment: one room, shown as text after every action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.grids import NOTHING_HAPPENS, directions
from palaestra.envs.history import fresh_seed
from palaestra.envs.params import whole
from palaestra.envs.sokoban.generate import LEVELS, generate
from palaestra.envs.sokoban.room import LEGEND, Room, State, admissible, move, parse, picture, solved
from palaestra.envs.sokoban.solver import deadlocked, plan
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError
from palaestra.seeds import derive_seed

MAX_TURNS = 120
"""Moves of an episode in a room of the user's, gym-sokoban's limit."""
PER_MOVE, ON, OFF, ALL = -0.1, 1.0, -1.0, 10.0
"""Rewards: of every move, of a box that comes onto a target or leaves it, of all boxes being on targets."""
OURS = "a sokoban task"


class Snapshot(NamedTuple):
    """An episode's state; nothing in it is ever changed."""

    room: Room
    state: State
    kind: str
    limits: tuple[int, int]
    """Most moves in the episode and in one action."""
    moves: int
    score: float
    advice: Mapping[State, str]


class SokobanEnv(Env[str, str]):
    """Push every box on a target.

    A task's `params` hold `level`, `split` and `index`, or a `room` in the symbols of the observation; and perhaps
    `max_turns`, in moves, and `moves_per_action`. Without a task, `reset` draws a training room of `level` from its
    seed.

    Rewards are gym-sokoban's (Schrader 2018; Racanière et al. 2017): -0.1 a move, 1 for a box pushed onto a target, -1
    for one pushed off, 10 when all are on targets, which ends the episode.
    """

    def __init__(self, level: str = "small", moves_per_action: int = 1) -> None:
        """Make it.

        Args:
            level: of the rooms that are drawn without a task.
            moves_per_action: most directions in one action, where the task does not say.
        """
        self.level = level
        self.moves_per_action = whole({"moves_per_action": moves_per_action}, "moves_per_action", OURS, least=1)
        self._room: Room | None = None
        self._advice: Mapping[State, str] = {}

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin in a room; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a room.
            UnknownNameError: no such level or split.
        """
        index = derive_seed(fresh_seed(None) if seed is None else seed, "sokoban")
        params = task.params if task is not None else {"level": self.level, "split": "train", "index": index}
        room, state, limit = _begin(params)
        most = whole(params, "moves_per_action", OURS, default=self.moves_per_action, least=1)
        self._limits = whole(params, "max_turns", OURS, default=limit, least=1), most
        self._room, self._state, self._advice = room, state, {}
        self._kind, self._moves, self._score = str(params.get("level", "own")), 0, 0.0
        several = f"; up to {most} at once, separated by commas" if most > 1 else ""
        first = f"Push every box on a target. {LEGEND}\nActions: up, down, left, right{several}.\n"
        return Reset(first + self._shown(), self._info(False))

    async def step(self, action: str) -> Step[str]:
        """Move. What makes no sense, and a move whose way is blocked, changes nothing and costs as much as a move.

        Of several moves in one action each has its reward, and those after the last box is home are not made.
        """
        room, reward, invalid = self._playing, 0.0, False
        for name in directions(action, self._limits[1]) or [""]:
            before = self._state
            self._state = move(room, before, room.steps[name]) if name else before
            invalid |= before is self._state
            reward += _reward(room, before, self._state)
            self._moves += 1
            if self._ended:
                break
        self._score += reward
        won = solved(room, self._state)
        text = f"{NOTHING_HAPPENS}\n{self._shown()}" if invalid else self._shown()
        return Step(text, reward, won, self._ended and not won, self._info(invalid))

    async def close(self) -> None:
        """Forget the room."""
        self._room = None

    async def snapshot(self) -> Snapshot:
        """The episode's state; takes a microsecond."""
        room = self._playing
        return Snapshot(room, self._state, self._kind, self._limits, self._moves, self._score, self._advice)

    async def restore(self, state: Snapshot) -> None:
        """Continue from `state`, in this or any other instance."""
        self._room, self._state, self._kind, self._limits, self._moves, self._score, self._advice = state

    async def oracle(self) -> str:
        """The next move of the solver's plan, whose length is the least possible in rooms that are not large.

        In a room that is lost, or for which no plan was found in time, any move that changes something.
        """
        room, state = self._playing, self._state
        if state not in self._advice:
            self._advice = _advice(room, state)
        return self._advice[state]

    async def render(self) -> str:
        """The room, and how far the episode is."""
        shown = "\n".join(picture(self._playing, self._state.boxes, self._state.player))
        return f"move {self._moves} of {self._limits[0]}, score {self._score:.1f}\n{shown}"

    @property
    def _playing(self) -> Room:
        if self._room is None:
            raise EnvError("no room is being played; call reset() first")
        return self._room

    @property
    def _ended(self) -> bool:
        return self._moves >= self._limits[0] or solved(self._playing, self._state)

    def _shown(self) -> str:
        return "\n".join(picture(self._playing, self._state.boxes, self._state.player))

    def _info(self, invalid: bool) -> Info:
        room, state = self._playing, self._state
        return {
            "admissible_commands": admissible(room, state),
            "success": solved(room, state),
            "invalid": invalid,
            "task_type": self._kind,
            "score": self._score,
            "deadlock": deadlocked(room, state.boxes),
        }


def _begin(params: Mapping[str, Any]) -> tuple[Room, State, int]:
    """The room, the state at the start, and the level's limit of moves."""
    if "room" not in params:
        level = str(params.get("level"))
        room, state = generate(level, str(params.get("split")), whole(params, "index", OURS))
        return room, state, LEVELS[level].max_turns
    room, state = parse(params["room"])
    if solved(room, state):
        raise DataError("the sokoban room is solved already")
    return room, state, MAX_TURNS


def _reward(room: Room, before: State, now: State) -> float:
    gained = len(now.boxes & room.targets) - len(before.boxes & room.targets)
    return PER_MOVE + (ON if gained > 0 else OFF if gained < 0 else 0.0) + (ALL if solved(room, now) else 0.0)


def _advice(room: Room, state: State) -> dict[State, str]:
    """The state and those that the plan leads through -> the move in each."""
    advice = {state: (admissible(room, state) or ["up"])[0]}
    for name in plan(room, state) or ():
        advice[state] = name
        state = move(room, state, room.steps[name])
    return advice
