"""The environment of several turns: a problem, and an interpreter to work on it with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from palaestra.envs.calls import find_call
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.math import arithmetic
from palaestra.envs.math.confinement import Kind, Limits, check_sandbox
from palaestra.envs.math.env import drawn, judged
from palaestra.envs.math.problem import Problem, found_answer, info_of, problem_of
from palaestra.envs.math.sandbox import run_python
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError

TOOL = "python"
LIMITS = Limits()
HINT = (
    "You may run Python: write <python>print(2 + 2)</python> and read what it prints. Every call is a fresh program. "
)
_SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": "Run a Python program and read what it prints. No network; nothing is kept between calls.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "the whole program"}},
            "required": ["code"],
        },
    },
}


class State(msgspec.Struct, frozen=True):
    """All that an episode is: code keeps nothing between calls."""

    problem: Problem
    turns: int = 0


class PythonEnv(Env[str, Any]):
    r"""A problem whose answer can be checked, and a Python interpreter.

    A task's `params` are the fields of `Problem`. Without a task, `reset` draws a training problem of the level
    `arithmetic` from its seed. An action that calls `python`, as `<python>code</python>` or in OpenAI's shape, runs the
    code of the first call, and the observation is `<result>what it printed</result>`. An action without a call ends the
    episode if it has an answer in a box or tags: reward 1 if that is right, else 0. One with neither is invalid. After
    `max_turns` actions the episode is truncated.

    Code runs in bubblewrap, without a network and with the limits given. `sandbox="none"`, or PALAESTRA_SANDBOX=none,
    runs it with the limits only: that is for a machine that has nothing to lose.
    """

    def __init__(
        self,
        difficulty: int = arithmetic.DIFFICULTY,
        *,
        sandbox: Kind | None = None,
        seconds: float = LIMITS.seconds,
        cpu_seconds: int = LIMITS.cpu_seconds,
        memory_bytes: int = LIMITS.memory_bytes,
        output: int = LIMITS.output,
    ) -> None:
        self.difficulty = arithmetic.checked(difficulty)
        self.sandbox = check_sandbox(sandbox or os.environ.get("PALAESTRA_SANDBOX") or "bubblewrap")
        self.limits = Limits(seconds=seconds, cpu_seconds=cpu_seconds, memory_bytes=memory_bytes, output=output)
        self._state: State | None = None

    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The interpreter."""
        return [_SCHEMA]

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a problem; see `Env.reset`.

        Raises:
            DataError: the task's params are no problem.
        """
        problem = problem_of(task.params) if task is not None else drawn(seed, self.difficulty)
        problem = msgspec.structs.replace(problem, bare=False)  # or every thought would be an answer
        self._state = State(problem)
        return Reset(f"{problem.problem}\n{HINT}{problem.how}", info_of(problem))

    async def step(self, action: Any) -> Step[str]:
        """Run code, or judge an answer.

        Raises:
            EnvError: `reset` has not been called, the sandbox does not work, or there is no judge.
            MissingExtraError: math-verify is needed and not installed.
        """
        state = self._playing
        problem, call = state.problem, find_call(action, (TOOL,))
        self._state = State(problem, state.turns + 1)
        truncated = state.turns + 1 >= problem.max_turns
        if call is not None:
            ran = await run_python(call.argument, self.limits, self.sandbox)
            info = {**info_of(problem), "tool": {"name": TOOL, "ok": ran.ok}}
            return Step(
                f"<result>\n{ran.output.strip() or '(nothing printed)'}\n</result>", 0.0, False, truncated, info
            )
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
        """The problem and the number of turns."""
        return self._playing

    async def restore(self, state: State) -> None:
        """Go on from `state`."""
        self._state = state

    @property
    def _playing(self) -> State:
        if self._state is None:
            raise EnvError("no problem has been asked; call reset() first")
        return self._state
