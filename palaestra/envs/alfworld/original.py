"""The original `alfworld` package as an environment: TextWorld's text grammar over the Fast Downward planner's states.

It plays the same games as our own engine and calls things by the same names, and is a thousand times slower: for
comparisons, and for whoever must have the original. Its parsers are globals of their modules and its planner can end
the process, so it runs in worker processes and never in threads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from palaestra.envs.alfworld.assignment import assignment
from palaestra.envs.alfworld.game import Game
from palaestra.envs.alfworld.oracle import next_command
from palaestra.envs.alfworld.world import NOTHING_HAPPENS, World
from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError, require


class OriginalEnv(Env[str, str]):
    """ALFWorld's household tasks as `alfworld` plays them; tasks are those of `HouseholdEnv`.

    Texts, admissible commands and success are the original's. The oracle is ours, whose world follows the commands.
    """

    def __init__(self, level: str = "small", fast_grammar: bool = True) -> None:
        """Make it.

        Args:
            level: of the training games that are drawn without a task.
            fast_grammar: parse each template of the text grammar once only, which changes no text and makes a step
                many times faster. It holds for all games of a process, as the last reset said.
        """
        self.level, self.fast_grammar = level, fast_grammar
        self._game: Any = None
        self._world: World | None = None
        self._turns = self._max_turns = 0

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a game; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a game that can be played.
            MissingExtraError: `alfworld` is not installed where this runs.
            EnvError: this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise EnvError("alfworld is not safe in threads, which end the process; place it in a process")
        game, max_turns = assignment(task, seed, self.level)
        require("alfworld", "alfworld")
        await self.close()
        self._game = _loaded(game, self.fast_grammar)
        self._world, self._turns, self._max_turns = World(game), 0, max_turns
        self._world.restart()
        state = self._game.reset()
        return Reset(state.feedback, self._info(state, False))

    async def step(self, action: str) -> Step[str]:
        """Do one command. One that does not apply here is answered by "Nothing happens." and marked invalid."""
        world, command = self._playing, action.strip() if isinstance(action, str) else ""
        state, _, won = self._game.step(command)
        world.act(command)
        self._turns += 1
        info = self._info(state, state.feedback == NOTHING_HAPPENS)
        return Step(state.feedback, float(won), won, not won and self._turns >= self._max_turns, info)

    async def close(self) -> None:
        """Release the planner."""
        game, self._game, self._world = self._game, None, None
        if game is not None:
            from fast_downward import close_lib

            close_lib(game.unwrapped.downward_lib)  # each game has a copy of the library; its own close() forgets it

    async def oracle(self) -> str:
        """The next command of a shortest plan."""
        return next_command(self._playing)

    @property
    def _playing(self) -> World:
        if self._world is None:
            raise EnvError("no game is being played; call reset() first")
        return self._world

    def _info(self, state: Any, invalid: bool) -> Info:
        return {
            "admissible_commands": list(state["admissible_commands"]),
            "success": bool(state["won"]),
            "invalid": invalid,
            "task_type": self._playing.game.goal.kind,
        }


def _loaded(game: Game, fast_grammar: bool) -> Any:
    """The game in a `PddlEnv`, with our names in place of those that `AlfredDemangler` would number by itself."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs import PddlEnv

    from palaestra.envs.alfworld.original_pddl import game_data, names
    from palaestra.envs.alfworld.original_speed import use_fast_grammar

    use_fast_grammar(fast_grammar)
    env = AlfredDemangler(PddlEnv(textworld.EnvInfos(admissible_commands=True, won=True)), shuffle=False)
    env.load(game_data(game))
    ours = names(game)
    for info in env._entity_infos.values():
        info.name = ours.get(info.id, info.name)
    return env
