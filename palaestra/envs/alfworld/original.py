"""The original `alfworld` package as an environment: TextWorld's text grammar over the Fast Downward planner's states.

It plays the same games as our own engine and calls things by the same names, and is a thousand times slower: for
comparisons, and for whoever must have the original; and it plays ALFWorld's own game files, where the user has them.
Its parsers are globals of their modules and its planner can end the process, so it runs in worker processes and never
in threads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from palaestra.envs.alfworld.assignment import assignment
from palaestra.envs.alfworld.game import Game
from palaestra.envs.alfworld.original_expert import Expert, PlannerExpert, WorldExpert
from palaestra.envs.alfworld.userdata import MAX_TURNS, UserGame, read_game
from palaestra.envs.alfworld.world import NOTHING_HAPPENS, World
from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.params import whole
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError, PalaestraError, require


class OriginalEnv(Env[str, str]):
    """ALFWorld's household tasks as `alfworld` plays them.

    Tasks are those of `HouseholdEnv`, or name one of the user's game files: `trial`, below the folder `data` or the one
    that `ALFWORLD_DATA` names. Texts, admissible commands and success are the original's. The oracle is ours, whose
    world follows the commands; of game files it is the original's planner.
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
        self._expert: Expert | None = None
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
        game, max_turns = _of_file(task) if task and "trial" in task.params else assignment(task, seed, self.level)
        require("alfworld", "alfworld")
        await self.close()
        try:
            self._game = _loaded(game, self.fast_grammar)
            state = self._game.reset()
        except PalaestraError:
            raise
        except (Exception, SystemExit) as error:  # its translator ends the program for PDDL that it does not like
            told = f"{type(error).__name__}: {str(error)[:300]}"
            raise DataError(f"alfworld cannot play this game, which is damaged or has no solution: {told}") from error
        self._expert = _expert(game, self._game)
        self._turns, self._max_turns = 0, max_turns
        return Reset(state.feedback, self._info(state, False))

    async def step(self, action: str) -> Step[str]:
        """Do one command. One that does not apply here is answered by "Nothing happens." and marked invalid."""
        expert, command = self._playing, action.strip() if isinstance(action, str) else ""
        state, _, won = self._game.step(command)
        expert.watch(command)
        self._turns += 1
        info = self._info(state, state.feedback == NOTHING_HAPPENS)
        return Step(state.feedback, float(won), won, not won and self._turns >= self._max_turns, info)

    async def close(self) -> None:
        """Release the planner."""
        game, self._game, self._expert = self._game, None, None
        if game is not None:
            _release(game)

    async def oracle(self) -> str:
        """The next command of a shortest plan; of game files, of the planner's."""
        return self._playing.advise()

    @property
    def _playing(self) -> Expert:
        if self._expert is None:
            raise EnvError("no game is being played; call reset() first")
        return self._expert

    def _info(self, state: Any, invalid: bool) -> Info:
        return {
            "admissible_commands": list(state["admissible_commands"]),
            "success": bool(state["won"]),
            "invalid": invalid,
            "task_type": self._playing.kind,
            "score": float(state["won"]),
        }


def _of_file(task: Task) -> tuple[UserGame, int]:
    return read_game(task.params), whole(task.params, "max_turns", "an alfworld game", default=MAX_TURNS, least=1)


def _expert(game: Game | UserGame, loaded: Any) -> Expert:
    return WorldExpert(World(game)) if isinstance(game, Game) else PlannerExpert(loaded, game.kind)


def _loaded(game: Game | UserGame, fast_grammar: bool) -> Any:
    """The game in a `PddlEnv`, with its planner."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs import PddlEnv

    from palaestra.envs.alfworld.original_grammar import refuse_code
    from palaestra.envs.alfworld.original_pddl import game_data
    from palaestra.envs.alfworld.original_speed import use_fast_grammar

    use_fast_grammar(fast_grammar)
    refuse_code()
    env = AlfredDemangler(PddlEnv(textworld.EnvInfos(admissible_commands=True, won=True)), shuffle=False)
    try:
        env.load(game_data(game) if isinstance(game, Game) else game.data)
    except BaseException:
        _release(env)
        raise
    if isinstance(game, Game):
        _name(env, game)
    return env


def _name(env: Any, game: Game) -> None:
    """Our names, in place of those that `AlfredDemangler` would number by itself."""
    from palaestra.envs.alfworld.original_pddl import names

    ours = names(game)
    for info in env._entity_infos.values():
        info.name = ours.get(info.id, info.name)


def _release(env: Any) -> None:
    from fast_downward import close_lib

    close_lib(env.unwrapped.downward_lib)  # each game has a copy of the library; its own close() forgets it
