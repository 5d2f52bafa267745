"""The environment: one puzzle, answered in one expression or solved by one operation a turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.countdown.generate import LEVELS, generate
from palaestra.envs.countdown.puzzle import (
    LARGEST,
    Numbers,
    Puzzle,
    apply,
    done,
    grade,
    operations,
    read_operation,
)
from palaestra.envs.countdown.solver import expression, solution
from palaestra.envs.grids import NOTHING_HAPPENS
from palaestra.envs.history import fresh_seed
from palaestra.envs.params import whole
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError
from palaestra.seeds import derive_seed

MOST_NUMBERS = 8
OURS = "a countdown task"
USES = {"all": "every number exactly once", "any": "each number at most once"}


class Snapshot(NamedTuple):
    """An episode's state."""

    puzzle: Puzzle
    steps: bool
    """Whether one operation is done a turn."""
    kind: str
    numbers: Numbers
    """What is left of them."""
    turns: int
    max_turns: int
    score: float


class CountdownEnv(Env[str, str]):
    """Make the target of the numbers, with + - * /.

    A task's `params` hold `level`, `split` and `index`; or `numbers`, `target`, `form` (`answer` or `steps`) and `use`
    (`all` or `any`). `max_turns` is for `steps`. Without a task, `reset` draws a training puzzle of `level` from its
    seed.

    In the form `answer` the first action ends the episode, with TinyZero's reward: 1 for an expression that is right,
    0.1 for another answer in `<answer>`, 0 for none. In the form `steps` an action is one operation, and reward is 1
    when the target is made, else 0.
    """

    def __init__(self, level: str = "steps-3") -> None:
        self.level = level
        self._puzzle: Puzzle | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a puzzle; see `Env.reset`.

        Raises:
            DataError: the task's params do not describe a puzzle.
            UnknownNameError: no such level or split.
        """
        index = derive_seed(fresh_seed(None) if seed is None else seed, "countdown")
        params = task.params if task is not None else {"level": self.level, "split": "train", "index": index}
        puzzle, self._steps = _begin(params)
        default = 2 * len(puzzle.numbers) if self._steps else 1
        self._max_turns = whole(params, "max_turns", OURS, default=default, least=1)
        self._puzzle, self._numbers, self._turns, self._score = puzzle, puzzle.numbers, 0, 0.0
        self._kind = str(params.get("level", "own"))
        return Reset(_opening(puzzle, self._steps), self._info(False))

    async def step(self, action: str) -> Step[str]:
        """Answer, or do one operation; one that is not possible changes nothing and takes a turn."""
        puzzle = self._playing
        self._turns += 1
        if not self._steps:
            graded = grade(puzzle, action)
            self._score = graded.reward
            return Step(graded.told, graded.reward, True, False, self._info(graded.reward == 0))
        operation = read_operation(action)
        after = apply(self._numbers, operation) if operation is not None else None
        if after is None or operation is None:
            text = NOTHING_HAPPENS
        else:
            text, self._numbers = f"{operation} = {operation.result}.", after
        won = done(puzzle, self._numbers)
        self._score = float(won)
        over = won or len(self._numbers) == 1
        truncated = not over and self._turns >= self._max_turns
        return Step(f"{text}\n{self._shown()}", self._score, over, truncated, self._info(after is None))

    async def close(self) -> None:
        """Forget the puzzle."""
        self._puzzle = None

    async def snapshot(self) -> Snapshot:
        """The episode's state; takes a microsecond."""
        puzzle = self._playing
        return Snapshot(puzzle, self._steps, self._kind, self._numbers, self._turns, self._max_turns, self._score)

    async def restore(self, state: Snapshot) -> None:
        """Continue from `state`, in this or any other instance."""
        self._puzzle, self._steps, self._kind, self._numbers, self._turns, self._max_turns, self._score = state

    async def oracle(self) -> str:
        """A right answer, or the next operation towards it; where there is none, any operation."""
        left = self._playing._replace(numbers=self._numbers)
        path = solution(left)
        if not self._steps:
            return f"<answer>{expression(left, path)}</answer>" if path is not None else "<answer></answer>"
        return str(path[0] if path else operations(self._numbers)[0])

    async def render(self) -> str:
        """The numbers that are left, and the target."""
        self._playing  # noqa: B018  # refuses before reset
        return self._shown()

    @property
    def _playing(self) -> Puzzle:
        if self._puzzle is None:
            raise EnvError("no puzzle is being played; call reset() first")
        return self._puzzle

    def _shown(self) -> str:
        return f"Numbers: {_listed(self._numbers)}. Target: {self._playing.target}."

    def _info(self, invalid: bool) -> Info:
        info = {"success": self._score == 1, "invalid": invalid, "task_type": self._kind, "score": self._score}
        if self._steps:
            info["admissible_commands"] = [str(operation) for operation in operations(self._numbers)]
        return info


def _opening(puzzle: Puzzle, steps: bool) -> str:
    numbers, use = _listed(puzzle.numbers), USES[puzzle.use]
    if not steps:
        return (
            f"Make {puzzle.target} of the numbers {numbers} with + - * / and brackets, using {use}. "
            "End with the expression in a tag: <answer>(1 + 2) / 3</answer>"
        )
    return (
        f"Make {puzzle.target}, using {use}. An operation on two numbers puts its result in their place: 2 * 3. "
        f"Results are whole and not negative.\nNumbers: {numbers}. Target: {puzzle.target}."
    )


def _listed(numbers: Numbers) -> str:
    return ", ".join(map(str, numbers))


def _begin(params: Mapping[str, Any]) -> tuple[Puzzle, bool]:
    """The puzzle, and whether it is solved in steps."""
    if "numbers" not in params:
        level = str(params.get("level"))
        return generate(level, str(params.get("split")), whole(params, "index", OURS)), LEVELS[level].form == "steps"
    numbers, form, use = params["numbers"], params.get("form", "answer"), params.get("use", "all")
    if not isinstance(numbers, list | tuple) or not 2 <= len(numbers) <= MOST_NUMBERS:
        raise DataError(f"numbers of {OURS} are a list of 2 to {MOST_NUMBERS}")
    if form not in ("answer", "steps") or use not in ("all", "any"):
        raise DataError(
            f"form of {OURS} is 'answer' or 'steps', and use 'all' or 'any', not {form!r:.80} and {use!r:.80}"
        )
    each = tuple(whole({"number": number}, "number", OURS, most=999_999) for number in numbers)
    puzzle = Puzzle(each, whole(params, "target", OURS, most=LARGEST), use)
    if form == "steps" and done(puzzle, puzzle.numbers):
        raise DataError(f"the target of {OURS} is among its numbers already")
    return puzzle, form == "steps"
