"""Our environments as TRL's `environment_factory` wants them: for models that call tools by their chat template.

TRL then owns the conversation: it renders, generates and tokenises, and plays turn by turn in step. What `rollout_func`
does (`PalaestraTrainer`) needs no tool calls, keeps token ids as they were sampled, and plays without waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from palaestra.envs.core import Env
from palaestra.envs.registry import make
from palaestra.envs.tasks import TaskSuite

OVER = "The episode is over."


class TextEnvironment:
    """One episode after the other in one environment. Its only tool is `act`."""

    def __init__(self, suite: TaskSuite) -> None:
        self._suite = suite
        self._loop = asyncio.new_event_loop()
        self._env: Env[Any, Any] | None = None
        self._made = ""
        self._total, self._over = 0.0, True

    def reset(self, **kwargs: Any) -> str:
        """Begin the task whose place in the suite is the data set's column `task`; the first observation."""
        task = self._suite[int(kwargs["task"])]
        if self._env is None or self._made != task.env:
            self._close()
            self._env, self._made = make(task.env), task.env
        self._total, self._over = 0.0, False
        return str(self._loop.run_until_complete(self._env.reset(seed=task.seed, task=task)).observation)

    def act(self, command: str) -> str:
        """
        Do one thing in the environment and see what happens.

        Args:
            command: What to do, in the words that the environment understands.

        Returns:
            What is observed then.
        """
        if self._over or self._env is None:
            return OVER
        step = self._loop.run_until_complete(self._env.step(command))
        self._total += float(step.reward)
        self._over = step.terminated or step.truncated
        return str(step.observation)

    def get_reward(self) -> float:
        """What the episode has given so far."""
        return self._total

    def _close(self) -> None:
        if self._env is not None:
            self._loop.run_until_complete(self._env.close())
            self._env = None

    def __del__(self) -> None:
        """TRL never says that it is done."""
        if not self._loop.is_closed() and not self._loop.is_running():
            self._close()
            self._loop.close()


def environment_factory(suite: TaskSuite) -> Callable[[], TextEnvironment]:
    """For `GRPOTrainer(environment_factory=...)`, whose data set has a column `task`: a place in `suite`."""
    return lambda: TextEnvironment(suite)
