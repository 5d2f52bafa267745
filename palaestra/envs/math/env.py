"""The environment of one turn: a problem, a solution, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.history import fresh_seed
from palaestra.envs.math import arithmetic
from palaestra.envs.math.problem import Problem, found_answer, grade, info_of, problem_of
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError
from palaestra.seeds import derive_seed


class AnswerEnv(Env[str, Any]):
    r"""A problem whose answer can be checked.

    A task's `params` are the fields of `Problem`. Without a task, `reset` draws a training problem of the level
    `arithmetic` from its seed. An action is a solution, as text or as a chat message; the last `\boxed{}` or
    `<answer>` in it is the answer. The episode ends with the first action: reward 1 if the answer is right, else 0. An
    action without an answer that can be read sets `info["invalid"]`.
    """

    def __init__(self, difficulty: int = arithmetic.DIFFICULTY) -> None:
        self.difficulty = arithmetic.checked(difficulty)
        self._problem: Problem | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a problem; see `Env.reset`.

        Raises:
            DataError: the task's params are no problem.
        """
        self._problem = problem_of(task.params) if task is not None else drawn(seed, self.difficulty)
        return Reset(f"{self._problem.problem}\n{self._problem.how}", info_of(self._problem))

    async def step(self, action: Any) -> Step[str]:
        """Judge a solution.

        Raises:
            EnvError: `reset` has not been called, or there is no judge.
            MissingExtraError: math-verify is needed and not installed.
        """
        return await judged(self._asked, found_answer(self._asked, action))

    async def oracle(self) -> str:
        """The right answer."""
        return self._asked.solution

    async def render(self) -> str:
        """The problem."""
        return self._asked.problem

    async def snapshot(self) -> Problem:
        """The problem, which is all there is."""
        return self._asked

    async def restore(self, state: Problem) -> None:
        """Go on with the problem of `state`."""
        self._problem = state

    @property
    def _asked(self) -> Problem:
        if self._problem is None:
            raise EnvError("no problem has been asked; call reset() first")
        return self._problem


def drawn(seed: int | None, difficulty: int) -> Problem:
    """A training problem of the level `arithmetic`."""
    seed = fresh_seed(None) if seed is None else seed
    return arithmetic.problem("train", derive_seed(seed, "math") % arithmetic.SIZES["train"], difficulty)


async def judged(problem: Problem, answer: str | None) -> Step[str]:
    """The last step of an episode."""
    if answer is None:
        return Step("There is no answer that can be read.", 0.0, True, False, info_of(problem, invalid=True))
    found = await grade(problem, answer)
    info = info_of(problem, success=found.right, error=found.error)
    return Step("Right." if found.right else "Wrong.", float(found.right), True, False, info)
