"""The reward `progress`: what a step adds to the best score so far, for tasks whose score can fall or comes in parts.

Where one slip costs everything, nearly all early episodes end with the same total, and a group's advantages are all 0.
Paid by progress, an episode's rewards add up to the best score that it reached, and never to less than 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from palaestra.envs.core import Env, Reset, Step, SupportsVerify, Verdict
from palaestra.envs.wrappers import Wrapper

if TYPE_CHECKING:
    from palaestra.envs.registry import EnvSpec
    from palaestra.envs.tasks import Task

PARAM = "progress"
"""The task's parameter that asks for it: `load_suite("scienceworld:train", progress=True)`."""


class ProgressReward(Wrapper):
    """Pays by progress in episodes whose task asks for it, and leaves all others alone. `make` puts it on always."""

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self._on, self._score, self._best = False, 0.0, 0.0
        if isinstance(env, SupportsVerify):
            self.verify = self._verify

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[Any]:
        """Begin an episode, with a score of 0."""
        first = await self.env.reset(seed=seed, task=task, options=options)
        self._on, self._score, self._best = task is not None and task.params.get(PARAM) is True, 0.0, 0.0
        return first

    async def step(self, action: Any) -> Step[Any]:
        """Take one action."""
        step = await self.env.step(action)
        return step._replace(reward=self._paid(step.reward)) if self._on and isinstance(step, Step) else step

    async def _verify(self) -> Verdict:
        verdict: Verdict = await self.env.verify()  # type: ignore[attr-defined]  # offered only if inside
        return verdict._replace(reward=self._paid(verdict.reward)) if self._on else verdict

    def _paid(self, reward: float) -> float:
        """The score is the sum of all rewards."""
        self._score += reward
        gain = max(0.0, self._score - self._best)
        self._best += gain
        return gain

    def get_state(self) -> tuple[bool, float, float]:
        """Whether it pays, the score, and the best so far."""
        return self._on, self._score, self._best

    def set_state(self, state: tuple[bool, float, float]) -> None:
        """Put back what `get_state` returned."""
        self._on, self._score, self._best = state

    def _add_to(self, spec: EnvSpec) -> EnvSpec:
        return spec
