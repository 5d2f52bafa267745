"""Who knows what to do next in the original package's games."""

from __future__ import annotations

from typing import Any, Protocol

from palaestra.envs.alfworld.oracle import next_command
from palaestra.envs.alfworld.world import World
from palaestra.errors import EnvError


class Expert(Protocol):
    """Watches an episode and advises."""

    kind: str
    """The game's task type."""

    def watch(self, command: str) -> None:
        """See what was done."""

    def advise(self) -> str:
        """The next command."""


class WorldExpert:
    """Ours, for our games: a shortest plan in our world, which follows the commands."""

    def __init__(self, world: World) -> None:
        self.kind: str = world.game.goal.kind
        self._world = world
        world.restart()

    def watch(self, command: str) -> None:
        """Do the same in our world."""
        self._world.act(command)

    def advise(self) -> str:
        """The next command of a shortest plan."""
        return next_command(self._world)


class PlannerExpert:
    """The original's, for games of the user's: its planner's plan, kept as long as it is followed."""

    def __init__(self, game: Any, kind: str) -> None:
        self.kind = kind
        self._game = game
        self._plan: list[str] = []

    def watch(self, command: str) -> None:
        """Go on in the plan, or drop it."""
        self._plan = self._plan[1:] if self._plan[:1] == [command] else []

    def advise(self) -> str:
        """The next command of the plan; planning takes a second or two at most, mostly.

        Raises:
            EnvError: the planner finds none.
        """
        self._plan = self._plan or list(self._game._pddl_state.replan(self._game._entity_infos))
        if not self._plan:
            raise EnvError("the planner of alfworld finds no plan from here")
        return self._plan[0]
