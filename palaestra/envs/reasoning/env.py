"""The environment: one question, one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.history import fresh_seed
from palaestra.envs.reasoning import bench
from palaestra.envs.reasoning.generators import DEFAULT, PER_SPLIT, known
from palaestra.envs.reasoning.guard import LONGEST
from palaestra.envs.reasoning.judge import Reply, Wanted
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, DeadlineError, EnvError, UnknownNameError, WorkerError
from palaestra.seeds import derive_seed

MAKING_SECONDS = 100.0
"""Processor time to make a question; the slowest take about one second, and some have to be made several times."""
JUDGING_SECONDS = 10.0
"""Processor time to judge an answer; honest ones take milliseconds."""


class ReasoningEnv(Env[str, str]):
    """One question of one of reasoning-gym's generators.

    A task's `params` hold `generator`, `split`, `index`, and optionally `difficulty` and `config`, as `load` gives
    them. Without a task, `reset` draws a training question of `generator` from its seed.

    The answer is what stands between the last `<answer>` and `</answer>`, else the whole action. Reward is the
    package's score, 0 to 1; one step ends the episode. `info["reason"]` says why an answer could not be judged, which
    also makes it `invalid`.
    """

    def __init__(
        self, generator: str = DEFAULT, difficulty: int | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.generator, self.difficulty, self.config = known(generator), difficulty, dict(config or {})
        self._wanted: Wanted | None = None
        self._asked = Reply()
        self._over = False

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Ask a question; see `Env.reset`.

        Raises:
            ConfigError: generator, difficulty and config do not fit.
            DataError: the task's params do not describe a question.
            EnvError: the generator fails.
            MissingExtraError: reasoning-gym is not installed.
        """
        self._wanted = None  # stays, should this fail
        wanted = _wanted(task.params if task is not None else self._drawn(seed))
        self._asked = bench.ask(wanted)
        self._wanted, self._over = wanted, False
        return Reset(self._asked.question, self._info(Reply(), over=False))

    async def step(self, action: str) -> Step[str]:
        """Answer. What is no text, empty or longer than 65,536 characters is invalid and earns 0."""
        if self._wanted is None or self._over:
            raise EnvError("there is no question to be answered; call reset() first")
        self._over = True
        reply = self._judged(self._wanted, answer_of(action))
        said = f"Score: {reply.reward:g}" + (f" ({reply.reason})" if reply.reason else "")
        return Step(said, reply.reward, True, False, self._info(reply, over=True))

    async def oracle(self) -> str:
        """The stored answer.

        Raises:
            EnvError: the generator stores none (`boxnet`, `rush_hour`).
        """
        if self._wanted is None:
            raise EnvError("there is no question to be answered; call reset() first")
        if self._asked.stored is None:
            raise EnvError(f"{self._wanted.generator} stores no answers, so that it has no oracle")
        return f"<answer>{self._asked.stored}</answer>"

    async def render(self) -> str:
        """The question."""
        return self._asked.question

    def _judged(self, question: Wanted, answer: str) -> Reply:
        if not answer.strip():
            return Reply(reason="there is no answer")
        if len(answer) > LONGEST:
            return Reply(reason=f"the answer is longer than {LONGEST} characters")
        setting = (question.generator, question.difficulty, question.config, question.split, question.index)
        try:
            return bench.ask(Wanted(*setting, answer=answer, seconds=JUDGING_SECONDS))
        except (DeadlineError, WorkerError) as error:
            return Reply(reason=f"the answer could not be judged: {error}")

    def _drawn(self, seed: int | None) -> dict[str, Any]:
        index = derive_seed(fresh_seed(None) if seed is None else seed, "reasoning") % PER_SPLIT["train"]
        setting = {"generator": self.generator, "difficulty": self.difficulty, "config": self.config}
        return {**setting, "split": "train", "index": index}

    def _info(self, reply: Reply, *, over: bool) -> Info:
        assert self._wanted is not None
        info = {"success": over and reply.reward >= 1.0, "invalid": bool(reply.reason), "score": reply.reward}
        return info | {"task_type": self._wanted.generator} | ({"reason": reply.reason} if reply.reason else {})


def answer_of(action: object) -> str:
    """The text in the last `<answer>` tag that is closed, else all of it, without the space around."""
    if not isinstance(action, str):
        return ""
    text = action.encode("utf-8", "replace").decode()  # lone surrogates cannot be sent
    if "</answer>" in text and len(text) <= 1 << 20:
        end = text.rindex("</answer>")
        start = text.rfind("<answer>", 0, end)
        text = text[start + len("<answer>") : end] if start >= 0 else text
    return text.strip()


def _wanted(params: Mapping[str, Any]) -> Wanted:
    split, index, config = params.get("split"), params.get("index"), params.get("config") or {}
    difficulty = params.get("difficulty")
    if split not in PER_SPLIT:
        raise UnknownNameError("split of reasoning", str(split), PER_SPLIT)
    if type(index) is not int or not 0 <= index < PER_SPLIT[split]:
        raise DataError(f"index of a reasoning question is a whole number below {PER_SPLIT[split]}, not {index!r}")
    if difficulty is not None and type(difficulty) is not int:
        raise DataError(f"difficulty of a reasoning question is a whole number, not {difficulty!r}")
    if not isinstance(config, Mapping):
        raise DataError(f"config of a reasoning question maps names to values, it is not {config!r}")
    generator = known(str(params.get("generator")))
    return Wanted(generator, difficulty, dict(config), split, index, seconds=MAKING_SECONDS)
