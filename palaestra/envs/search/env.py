"""The environment: one question, a search engine over a corpus, and its pages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.history import fresh_seed
from palaestra.envs.search import shelf
from palaestra.envs.search.corpus import Corpus
from palaestra.envs.search.desk import Outcome, serve, wrap
from palaestra.envs.search.judge import Mark, grade, pay
from palaestra.envs.search.offers import asked_for, offers, remember
from palaestra.envs.search.options import Options, read_options
from palaestra.envs.search.oracle import advise
from palaestra.envs.search.questions import Question
from palaestra.envs.search.request import LONGEST, Request, escaped, read_request, say, schemas
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError
from palaestra.seeds import derive_seed

_HOW = {
    "message": (
        "Find the answer by searching an encyclopaedia. Each turn make one call: <search>words</search> shows pages, "
        "<read>title</read> shows a page, <answer>the answer alone</answer> ends the task."
    ),
    "text": (
        "Find the answer by searching an encyclopaedia. Each turn write one line: search WORDS shows pages, read TITLE "
        "shows a page, answer ANSWER ends the task."
    ),
}
_NO_CALL = "No call was found: write search, read or answer as the task shows."


@dataclass(frozen=True, slots=True)
class State:
    """An episode so far; a snapshot is this and nothing else."""

    params: Mapping[str, Any]
    """What names the question."""
    options: Options
    turns: int = 0
    used: frozenset[str] = frozenset()
    """Tools."""
    asked: tuple[str, ...] = ()
    """Queries."""
    shown: frozenset[str] = frozenset()
    """Ids of pages that a search has found."""
    read: frozenset[str] = frozenset()
    """Ids of pages that were read."""
    seen: tuple[str, ...] = ()
    """Names, the newest first."""
    score: float = 0.0
    success: bool = False
    over: bool = False


class QuestionsEnv(Env[str, Any]):
    """A question to be answered with `search` and `read`, over several turns.

    A task's `params` name the question (see `shelf.fetch`) and may hold `Options`, which come before those given here.
    Without a task, `reset` draws a training question of `level` from its seed.

    An action is text with a tag in it, or a chat message with a tool call; with `action="text"` a line. `answer` ends
    the episode, and pays what `Options.reward` says; `info["success"]` is whether it equals a gold answer. Results come
    between `<result>` tags, and no bracket inside is a tag. Nothing is random.
    """

    def __init__(self, level: str = "medium", **options: Any) -> None:
        shelf.check_names("train", level)
        unknown = sorted(set(options) - set(Options.__slots__))
        if unknown:
            raise EnvError(f"search has no option {', '.join(unknown)}; it has {', '.join(Options.__slots__)}")
        self.level, self.options = level, read_options(options, Options())
        self._state: State | None = None
        self._question = Question("", ())
        self._corpus: Corpus | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin with a question; see `Env.reset`.

        Raises:
            ConfigError, DataError, UnknownNameError: the task's params name no question.
            MissingExtraError: tantivy is not installed.
        """
        params = dict(task.params) if task is not None else self._drawn(seed)
        self._state = None  # stays, should this fail
        chosen = read_options(params, self.options)
        await self._open(params)
        self._state = State(params, chosen, seen=asked_for(self._question.text))
        text = f"{_HOW[chosen.action]}\n\nQuestion: {escaped(self._question.text)}"
        return Reset(text, self._info(invalid=False))

    async def step(self, action: Any) -> Step[str]:
        """Carry out one call. An action without one is answered, marked invalid, and takes a turn all the same."""
        state = self._playing
        if state.over:
            raise EnvError("the episode is over; call reset() first")
        request = read_request(action, state.options.action)
        if request is not None and request.name == "answer":
            return self._answered(request.argument)
        outcome = self._served(request)
        ends = self._playing.turns >= state.options.max_turns
        reward = self._paid(None) if ends else 0.0
        return Step(outcome.text, reward, False, ends, self._info(outcome.refused, outcome.tool))

    async def close(self) -> None:
        """Forget the question. Corpora stay, for other instances."""
        self._state = self._corpus = None

    async def snapshot(self) -> State:
        """The episode's state, which is never changed: it costs nothing."""
        return self._playing

    async def restore(self, state: State) -> None:
        """Continue from `state`, in this or any other instance."""
        self._state = None
        await self._open(state.params)
        self._state = state

    async def oracle(self) -> str:
        """The next call on the way over the supporting pages; where they are not known, one search, then the answer."""
        state = self._playing
        left = state.options.max_turns - state.turns
        advice = advise(self._question, self._pages, state.shown, state.read, state.asked, left)
        return say(advice.name, advice.argument, state.options.action)

    async def render(self) -> str:
        """The question, its answer, and what was found so far."""
        state, question = self._playing, self._question
        lines = [f"question: {question.text}", f"answer: {question.answers[0]}", f"type: {question.kind}"]
        lines += [f"searched: {'; '.join(state.asked)}", f"read: {', '.join(sorted(state.read))}"]
        return "\n".join(lines)

    def tools(self) -> Sequence[Mapping[str, Any]]:
        """`search`, `read` and `answer`."""
        return schemas()

    async def _open(self, params: Mapping[str, Any]) -> None:
        """Find the question; a large corpus is built beside the event loop, so that other episodes go on."""
        found = _fetch(params) if shelf.is_small(params) else await asyncio.to_thread(_fetch, params)
        self._question, self._corpus = found

    def _drawn(self, seed: int | None) -> dict[str, Any]:
        seed = fresh_seed(None) if seed is None else seed
        number = derive_seed(seed, "search", self.level)
        worlds, per_world = shelf.WORLDS["train"], shelf.QUESTIONS["train"]
        place = {"world": number % worlds, "index": number // worlds % per_world}
        return {"split": "train", "level": self.level, **place}

    @property
    def _playing(self) -> State:
        if self._state is None:
            raise EnvError("no question is being asked; call reset() first")
        return self._state

    @property
    def _pages(self) -> Corpus:
        assert self._corpus is not None
        return self._corpus

    def _served(self, request: Request | None) -> Outcome:
        """Carry out a call, or say that there was none, and remember what came of it."""
        state = self._playing
        if request is None:
            self._state = replace(state, turns=state.turns + 1)
            return Outcome(wrap(_NO_CALL), {}, refused=True)
        outcome = serve(request, self._pages, state.options)
        asked = (*state.asked, request.argument) if request.name == "search" else state.asked
        self._state = replace(
            state,
            turns=state.turns + 1,
            used=state.used | {request.name},
            asked=asked,
            shown=state.shown | set(outcome.shown),
            read=state.read | ({outcome.read} if outcome.read else set()),
            seen=remember(state.seen, outcome.names),
        )
        return outcome

    def _answered(self, answer: str) -> Step[str]:
        state, fits = self._playing, len(answer) <= LONGEST
        mark = grade(answer, self._question.answers) if fits else Mark(False, 0.0)
        self._state = replace(state, turns=state.turns + 1, success=mark.exact, over=True)
        reward = self._paid(mark)
        info = self._info(not answer, {"name": "answer", "ok": bool(answer)})
        return Step(wrap(f"Your answer: {answer[:LONGEST]}"), reward, True, False, info)

    def _paid(self, mark: Mark | None) -> float:
        state = self._playing
        reward = pay(state.options.reward, mark, state.used)
        self._state = replace(state, score=reward, over=True)
        return reward

    def _info(self, invalid: bool, tool: Mapping[str, Any] | None = None) -> Info:
        state = self._playing
        info: Info = {"success": state.success, "invalid": invalid, "score": state.score}
        info["task_type"] = self._question.kind
        if tool:
            info["tool"] = dict(tool)
        if most := state.options.offer:
            listed = (
                [] if state.over else offers(self._question.text, state.seen, self._pages, state.options.action, most)
            )
            info["admissible_commands"] = listed
        return info


def _fetch(params: Mapping[str, Any]) -> tuple[Question, Corpus]:
    shelved = shelf.fetch(params)
    return shelved.question, shelved.corpus()
