"""What was done in an episode so far, and doing it again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.episode import seen
from palaestra.envs.tasks import Task
from palaestra.errors import ReplayError


@dataclass(slots=True)
class History:
    """An episode so far: enough to play it again and to see that it went the same way.

    Observations are kept by reference, and hashed only when somebody replays.
    """

    seed: int | None
    task: Task | None
    options: Mapping[str, Any] | None
    first: Reset[Any]
    turns: list[tuple[Any, Step[Any]]] = field(default_factory=list)
    """Action and what came of it."""

    def copy(self) -> History:
        """The same episode, to go on apart from this one."""
        return replace(self, turns=list(self.turns))


def fresh_seed(task: Task | None) -> int:
    """A seed for an episode that nobody gave one: the task's, or a new one, so that it can be replayed."""
    return task.seed if task is not None else secrets.randbits(31)


async def replay(env: Env[Any, Any], history: History) -> None:
    """Bring `env`, any fresh instance, to where the episode stands.

    Raises:
        ReplayError: a reward, flag or observation differs; `step` 0 is the reset.
    """
    first = await env.reset(seed=history.seed, task=history.task, options=history.options)
    _compare(0, history.first, first)
    for number, (action, before) in enumerate(history.turns, 1):
        _compare(number, before, await env.step(action))


def _compare(number: int, before: Reset[Any] | Step[Any], now: Reset[Any] | Step[Any]) -> None:
    if seen("", before) != seen("", now):
        where = f"step {number}" if number else "the reset"
        raise ReplayError(
            f"the replay differs at {where}: the environment is not deterministic",
            step=number,
            expected=_shown(before),
            got=_shown(now),
        )


def _shown(turn: Reset[Any] | Step[Any]) -> str:
    if isinstance(turn, Step):
        head = f"reward {turn.reward} terminated {turn.terminated} truncated {turn.truncated}\n"
        return head + str(turn.observation)
    return str(turn.observation)
