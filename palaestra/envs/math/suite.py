"""The `math` suite: `math/LEVEL:SPLIT`, generated arithmetic or sets of problems."""

from __future__ import annotations

from typing import Any

import msgspec

from palaestra.envs.math import arithmetic
from palaestra.envs.math.datasets import SOURCES, problems
from palaestra.envs.math.problem import MAX_TURNS, Problem
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

LEVEL = "arithmetic"
LEVELS = (LEVEL, *SOURCES)
ENVS = {None: "math/Answer-v0", "python": "math/Python-v0"}
"""By the tools that the agent has."""
JUDGE_NAMES = ("math-verify", "exact")


def load(
    split: str,
    level: str | None = None,
    *,
    data: str | None = None,
    tools: str | None = None,
    difficulty: int = arithmetic.DIFFICULTY,
    choices: int = 0,
    judge: str = JUDGE_NAMES[0],
    max_turns: int = MAX_TURNS,
) -> TaskSuite:
    """The problems of one split.

    Args:
        split: `train`, `validation` or `test`; sets that exist to be tested with have only that.
        level: `arithmetic` (the default), `gsm8k`, `math500`, `aime24`, `aime25`, `dapo`, or `file` for any problems.
        data: the file or folder of a set; without it `PALAESTRA_DATA` is looked in, then the hub.
        tools: `python` for the environment of several turns with an interpreter.
        difficulty: of `arithmetic`, 1 to 8.
        choices: of `arithmetic`: how many answers to choose from, which are then the admissible commands; 0 for none.
        judge: of sets: `math-verify`, or `exact`, for which an expression is not the number that it comes to.
        max_turns: of an episode with tools.

    Raises:
        UnknownNameError: no such level or split.
        ConfigError: the level has no such split, or a parameter is out of range.
        DataError: the set's file is missing or does not hold problems.
        MissingExtraError: the set is on the hub, and the extra `hub` is not installed.
    """
    level = level or LEVEL
    if level not in LEVELS:
        raise UnknownNameError("level of math", level, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of math", split, SPLITS)
    if tools not in ENVS:
        raise ConfigError(f"tools of the suite math is python or nothing, not {tools!r}")
    if judge not in JUDGE_NAMES:
        raise ConfigError(f"judge of the suite math is {' or '.join(JUDGE_NAMES)}, not {judge!r}")
    more: dict[str, Any] = {"max_turns": arithmetic.whole("max_turns", max_turns, 1, 1_000_000)} if tools else {}
    if level == LEVEL:
        return _arithmetic(split, difficulty, choices, ENVS[tools], more)
    more["judge"] = judge
    found = problems(level, split, data)
    return TaskSuite(
        f"math/{level}", split, len(found), lambda i: _task(ENVS[tools], split, found[i][0], i, found[i][1], more)
    )


def _arithmetic(split: str, difficulty: int, choices: int, env: str, more: dict[str, Any]) -> TaskSuite:
    arithmetic.checked(difficulty)
    arithmetic.whole("choices", choices, 0, arithmetic.MOST_CHOICES)

    def build(index: int) -> Task:
        problem = arithmetic.problem(split, index, difficulty, choices)
        return _task(env, split, f"arithmetic-{difficulty}-{index}", index, problem, more)

    return TaskSuite(f"math/{LEVEL}", split, arithmetic.SIZES[split], build)


def _task(env: str, split: str, name: str, index: int, problem: Problem, more: dict[str, Any]) -> Task:
    params = {**msgspec.to_builtins(problem), **more}
    return Task(env=env, name=name, split=split, seed=index, params=params, kind=problem.kind)
