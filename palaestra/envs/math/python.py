"""The environment of several turns: a problem, and an interpreter to work on it with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.tools import CodeState, CodeTools
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.math import arithmetic
from palaestra.envs.math.env import drawn, judged
from palaestra.envs.math.problem import Problem, found_answer, info_of, problem_of
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError

LIMITS = CodeLimits(seconds=20, cpu_seconds=5, partial=False)
HINT = (
    "You may run Python: write <python>print(2 + 2)</python> and read what it prints. Names live from call to call, as "
    "in a notebook. "
)


class State(msgspec.Struct, frozen=True):
    """All that an episode is."""

    problem: Problem
    turns: int = 0
    code: CodeState = CodeState()
    """What was run."""


class PythonEnv(Env[str, Any]):
    r"""A problem whose answer can be checked, and a Python interpreter.

    A task's `params` are the fields of `Problem`. Without a task, `reset` draws a training problem of the level
    `arithmetic` from its seed. An action that calls `python`, as `<python>code</python>` or in OpenAI's shape, runs the
    code of the first call, and the observation is `<result>what it printed</result>`. An action without a call ends the
    episode if it has an answer in a box or tags: reward 1 if that is right, else 0. One with neither is invalid. After
    `max_turns` actions the episode is truncated.

    Code runs in a sandbox of the episode's own, without a network and with the limits given. `sandbox="none"`, or
    PALAESTRA_SANDBOX=none, runs it with limits only: that is for a machine that has nothing to lose.
    """

    def __init__(
        self,
        difficulty: int = arithmetic.DIFFICULTY,
        *,
        sandbox: str | None = None,
        image: str = "",
        seconds: float = LIMITS.seconds,
        cpu_seconds: int = LIMITS.cpu_seconds,
        memory_bytes: int = LIMITS.memory,
        output: int = LIMITS.output,
    ) -> None:
        self.difficulty = arithmetic.checked(difficulty)
        limits = msgspec.structs.replace(
            LIMITS, seconds=seconds, cpu_seconds=cpu_seconds, memory=memory_bytes, output=output
        )
        where = sandbox or os.environ.get("PALAESTRA_SANDBOX") or "bubblewrap"
        self.code = CodeTools("python", where=where, image=image, limits=limits)
        self._state: State | None = None

    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The interpreter."""
        return self.code.schemas()

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a problem; see `Env.reset`.

        Raises:
            DataError: the task's params are no problem.
        """
        problem = problem_of(task.params) if task is not None else drawn(seed, self.difficulty)
        problem = msgspec.structs.replace(problem, bare=False)  # or every thought would be an answer
        await self.code.begin()
        self._state = State(problem)
        return Reset(f"{problem.problem}\n{HINT}{problem.how}", info_of(problem))

    async def step(self, action: Any) -> Step[str]:
        """Run code, or judge an answer.

        Raises:
            EnvError: `reset` has not been called, the sandbox does not work, or there is no judge.
            MissingExtraError: math-verify is needed and not installed.
        """
        state = self._playing
        problem, call = state.problem, self.code.find(action)
        self._state = State(problem, state.turns + 1)
        truncated = state.turns + 1 >= problem.max_turns
        if call is not None:
            done = await self.code.call(call.name, call.argument)
            return Step(done.result, 0.0, False, truncated, {**info_of(problem), "tool": done.tool})
        if (answer := found_answer(problem, action)) is not None:
            return await judged(problem, answer)
        text = f"There is neither a call of python nor an answer that can be read. {HINT}{problem.how}"
        return Step(text, 0.0, False, truncated, info_of(problem, invalid=True))

    async def oracle(self) -> str:
        """The right answer."""
        return self._playing.problem.solution

    async def render(self) -> str:
        """The problem, and how far the episode is."""
        state = self._playing
        return f"{state.problem.problem}\n(turn {state.turns} of at most {state.problem.max_turns})"

    async def snapshot(self) -> State:
        """The problem, the number of turns, and the code that was run."""
        return msgspec.structs.replace(self._playing, code=self.code.snapshot())

    async def restore(self, state: State) -> None:
        """Go on from `state`. What was run is run again, in a fresh sandbox, when there is more to run."""
        self._state = state
        await self.code.restore(state.code)

    async def close(self) -> None:
        """End the sandbox."""
        await self.code.close()

    @property
    def _playing(self) -> State:
        if self._state is None:
            raise EnvError("no problem has been asked; call reset() first")
        return self._state
