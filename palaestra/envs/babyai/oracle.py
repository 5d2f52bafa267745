"""The oracle: BabyAI's own bot, watching a twin of the game."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from palaestra.envs.babyai.levels import begin
from palaestra.envs.babyai.words import NAMES

LOST = "turn left"
"""Said where the bot knows no plan."""
SEARCHES = 40
"""Most searches of the bot for one command; it makes up to ten, or goes round in circles for ever."""


class Oracle:
    """Advises on one game, which it plays again on its own twin: asking it changes nothing in the game itself.

    The bot remembers what the agent has seen, so it has to watch every action; it catches up when it is asked.
    """

    def __init__(self, level: str, seed: int) -> None:
        self._twin = begin(level, seed)
        self._bot = _bot_class()(self._twin)
        self._watched = 0
        self._advice = self._plan(None)

    def advise(self, actions: Sequence[int]) -> str:
        """The next command of the bot's plan after `actions`, which are all that were done since the start."""
        for action in actions[self._watched :]:
            self._twin.step(action)
            self._advice = self._plan(action)
        self._watched = len(actions)
        return self._advice

    def _plan(self, action: int | None) -> str:
        try:
            return NAMES.get(self._bot.replan(action), LOST)
        except Exception:  # the bot gives up where its authors did not foresee the action, as when a box is opened
            self._bot = _bot_class()(self._twin)
        with suppress(Exception):
            return NAMES.get(self._bot.replan(), LOST)
        return LOST


@lru_cache(1)
def _bot_class() -> type[Any]:
    from minigrid.utils.baby_ai_bot import BabyAIBot

    class Bot(BabyAIBot):  # type: ignore[misc]  # minigrid has no types
        """BabyAI's bot, which gives up where it would search for ever."""

        def replan(self, action_taken: int | None = None) -> int:
            self._left = SEARCHES
            return int(super().replan(action_taken))

        def _breadth_first_search(self, *args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise RuntimeError("the bot goes round in circles")
            return super()._breadth_first_search(*args, **kwargs)

    return Bot
