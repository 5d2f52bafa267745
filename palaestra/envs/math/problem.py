"""A problem as a task holds it, and how its answer is graded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from palaestra.envs.core import Info
from palaestra.envs.math.answer import last_answer, readable, said
from palaestra.envs.math.equal import equal, repeats
from palaestra.envs.math.judge import judge
from palaestra.errors import DataError

BOXED = r"Put the final answer in \boxed{}."
BARE = "Answer with the number alone."
MAX_TURNS = 8
"""Of an episode with tools."""


class Problem(msgspec.Struct, frozen=True):
    """What a task's `params` hold."""

    problem: Annotated[str, msgspec.Meta(min_length=1)]
    answer: Annotated[str, msgspec.Meta(min_length=1)]
    kind: str = "math"
    """The row under which evaluation reports it."""
    judge: Literal["math-verify", "exact"] = "math-verify"
    """`exact`: by equality of texts and rational numbers alone, which needs no extra."""
    bare: bool = False
    """Whether a message without a box or tags is, as a whole, the answer."""
    choices: tuple[str, ...] = ()
    """Answers to choose from, given as the admissible commands."""
    max_turns: Annotated[int, msgspec.Meta(ge=1)] = MAX_TURNS
    """Where there are tools; without them an episode has one turn."""

    @property
    def how(self) -> str:
        """How to answer, for the agent."""
        return BARE if self.bare else BOXED

    @property
    def solution(self) -> str:
        """What an expert would say."""
        return self.answer if self.bare or self.choices else rf"\boxed{{{self.answer}}}"


class Grade(msgspec.Struct, frozen=True):
    """Of an answer."""

    right: bool
    error: str = ""
    """Why nobody could say, or need say: the judge took too long, or crashed, or the answer repeats the problem."""


def problem_of(params: Mapping[str, Any]) -> Problem:
    """The problem that a task's params describe.

    Raises:
        DataError: they do not describe one.
    """
    try:
        return msgspec.convert(dict(params), Problem)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise DataError(f"the params of the task are no problem of the suite math: {error}") from None


def found_answer(problem: Problem, action: object) -> str | None:
    """The answer in an action, where there is one that can be read."""
    text = said(action)
    if text is None:
        return None
    answer = last_answer(text)
    if answer is None and (problem.bare or text in problem.choices):
        answer = text.strip()
    return answer if answer is not None and readable(answer) else None


async def grade(problem: Problem, answer: str) -> Grade:
    """Whether `answer` solves `problem`; see `judge`."""
    plain = equal(answer, problem.answer)
    if plain is not None or problem.judge == "exact":
        return Grade(plain is True)
    if repeats(answer, problem.problem):
        return Grade(False, "the answer repeats the problem")
    judgement = await judge(answer, problem.answer)
    return Grade(judgement.right, judgement.error)


def info_of(problem: Problem, *, success: bool = False, invalid: bool = False, error: str = "") -> Info:
    """What every turn tells beside the observation."""
    info: Info = {"success": success, "invalid": invalid, "task_type": problem.kind, "score": float(success)}
    if problem.choices:
        info["admissible_commands"] = list(problem.choices)
    if error:
        info["judge_error"] = error
    return info
