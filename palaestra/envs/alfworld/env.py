"""The household environment: one episode of the text game, reward 1 when the task is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.envs.alfworld.assignment import assignment
from palaestra.envs.alfworld.game import Game
from palaestra.envs.alfworld.oracle import next_command
from palaestra.envs.alfworld.world import NOTHING_HAPPENS, State, World
from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError


class HouseholdEnv(Env[str, str]):
    """ALFWorld's household tasks on Palaestra's own engine.

    `assignment` says what a task's `params` hold. Without a task, `reset` draws a training game of `level` from its
    seed. The game itself has no randomness.
    """

    def __init__(self, level: str = "small") -> None:
        self.level = level
        self._world: World | None = None
        self._turns = self._max_turns = 0

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a game; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a game that can be played.
        """
        game, self._max_turns = assignment(task, seed, self.level)
        self._world = World(game)
        self._turns = 0
        return Reset(self._world.restart(), self._info(self._world, False))

    async def step(self, action: str) -> Step[str]:
        """Do one command. One that does not apply here is answered by "Nothing happens." and marked invalid."""
        world = self._playing
        observation = world.act(action.strip()) if isinstance(action, str) else NOTHING_HAPPENS
        self._turns += 1
        won = world.won()
        info = self._info(world, observation is NOTHING_HAPPENS)
        return Step(observation, float(won), won, not won and self._turns >= self._max_turns, info)

    async def close(self) -> None:
        """Forget the game."""
        self._world = None

    async def snapshot(self) -> tuple[Game, State, int, int]:
        """The episode's state; takes microseconds."""
        world = self._playing
        return world.game, world.snapshot(), self._turns, self._max_turns

    async def restore(self, state: tuple[Game, State, int, int]) -> None:
        """Continue from `state`, in this or any other instance."""
        game, inner, self._turns, self._max_turns = state
        if self._world is None or self._world.game is not game:
            self._world = World(game)
        self._world.restore(inner)

    async def oracle(self) -> str:
        """The next command of a shortest plan."""
        return next_command(self._playing)

    async def render(self) -> str:
        """Everything there is, the agent's place marked by an arrow."""
        world = self._playing
        held = world.objects[world.held] if world.held >= 0 else "nothing"
        rows = [
            f"{'→' if i == world.place else ' '} {name}: {', '.join(world.objects[o] for o in inside) or '-'}"
            for i, (name, inside) in enumerate(zip(world.receptacles, world.contents, strict=True))
        ]
        return "\n".join([f"task: {world.game.goal.text}", f"held: {held}", *rows])

    @property
    def _playing(self) -> World:
        if self._world is None:
            raise EnvError("no game is being played; call reset() first")
        return self._world

    @staticmethod
    def _info(world: World, invalid: bool) -> Info:
        return {
            "admissible_commands": world.admissible(),
            "success": world.won(),
            "invalid": invalid,
            "task_type": world.game.goal.kind,
            "score": float(world.won()),
        }
