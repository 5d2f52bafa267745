"""The language-model agent: an engine, a chat format, an action format and a context policy.

A session keeps the episode's nodes. Each turn adds what the environment wrote, what makes the model answer, and the
completion exactly as the engine sampled it; prompts are concatenations of nodes, so nothing is ever encoded twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

from palaestra.agents.actions import ActionFormat, Choices, TextAction
from palaestra.agents.agent import Decision
from palaestra.agents.chat import ChatFormat
from palaestra.agents.context import ContextPolicy, FullContext, Turn
from palaestra.agents.engines.base import (
    Completion,
    ContextFullError,
    Engine,
    Request,
    SamplingParams,
    SupportsNotes,
)
from palaestra.envs.core import Env, Info
from palaestra.seeds import derive_seed
from palaestra.trajectories.record import Node

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """How much a language agent may write and read."""

    max_tokens: int = 32
    """Most tokens of one completion, the end token included. A choice among commands may always be finished."""
    max_context: int | None = None
    """Most tokens of prompt and completion together; `None`: what the engine's model was made for. An episode that
    would need more ends with the status `overflow`."""


@dataclass(frozen=True)
class LanguageAgent:
    """A language model that acts by writing."""

    engine: Engine
    chat: ChatFormat
    actions: ActionFormat = field(default_factory=TextAction)
    context: ContextPolicy = field(default_factory=FullContext)
    limits: TokenLimits = field(default_factory=TokenLimits)
    temperature: float = 1.0
    """0 takes the likeliest token."""
    system: str | None = None
    """System prompt; `None`: none, or the chat template's default."""
    name: str = "language"
    top_k: int = 0
    """As `SamplingParams.top_k`."""
    top_p: float = 1.0
    """As `SamplingParams.top_p`."""
    weights: str = ""
    """Fingerprint of the engine's weights, for `identity`; empty where nobody took one."""

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> LanguageSession:
        """Begin a conversation."""
        return LanguageSession(self, seed)

    def fork(self, session: LanguageSession, *, seed: int, env: Env[Any, Any] | None = None) -> LanguageSession:
        """A conversation that begins like `session`, up to the answer before its last."""
        return session.fork(seed)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides, with the seed, which tokens are sampled."""
        return {
            "weights": self.weights,
            "action format": _told(self.actions),
            "context": _told(self.context),
            "max_tokens": self.limits.max_tokens,
            "max_context": self.limits.max_context,
            "system message": self.system,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
        }

    @property
    def window(self) -> int:
        """Most tokens of prompt and completion together."""
        model = self.engine.context_length
        return model if self.limits.max_context is None else min(model, self.limits.max_context)

    def with_(self, **changes: Any) -> LanguageAgent:
        """The same agent with some settings replaced, for example `temperature=0.0, name="greedy"`."""
        return replace(self, **changes)


class LanguageSession:
    """One conversation. `act` is called for one turn after the other."""

    def __init__(self, agent: LanguageAgent, seed: int) -> None:
        self.agent, self.seed = agent, seed
        self.nodes: list[Node] = []
        self._id = f"{agent.name}#{next(_numbers)}"
        self._parent = ""
        """The engine's name for the conversation that this one came from."""
        self._turns: list[Turn] = []
        self._expected: list[int] | None = None
        """What the next prompt begins with if it extends the last one."""
        self._before: tuple[int, list[int] | None] = (0, None)
        """Number of nodes, and `_expected`, before the last `act`."""
        if prefix := agent.chat.system(agent.system):
            self.nodes.append(Node(ids=prefix, role="system"))
        self._prefix = range(len(self.nodes))

    async def act(self, observation: str, info: Info) -> Decision:
        """Show the observation to the model and read its answer as an action."""
        agent = self.agent
        self._before = len(self.nodes), self._expected
        self._close_turn()
        self._open_turn(observation)
        prompt = agent.context.select(self._prefix, self._turns)
        choices = agent.actions.choices(agent.chat, info)
        request = self._request(prompt, choices)
        if len(request.prompt) + request.sampling.max_tokens > agent.window:
            return Decision(status="overflow")
        try:
            completion = await agent.engine.generate(request)
        except ContextFullError:
            if len(self._turns) == 1:
                raise  # no episode will fit: the model or the settings are wrong, and the engine says how
            return Decision(status="overflow")
        parsed = agent.actions.parse(agent.chat, completion.ids, choices)
        index = self._add(completion)
        return Decision(
            text=parsed.text, error=parsed.error, completion=index, prompt=self._record_prompt(prompt, index)
        )

    def fork(self, seed: int) -> LanguageSession:
        """The conversation as it was before the last `act`, to be gone on with by other draws. Nodes are shared, as
        nothing changes them."""
        other = LanguageSession(self.agent, seed)
        count, other._expected = self._before
        other.nodes, other._turns, other._parent = self.nodes[:count], self._turns[:-1], self._id
        return other

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the engine has to say of the conversation."""
        engine = self.agent.engine
        return engine.notes(self._id) if isinstance(engine, SupportsNotes) else {}

    async def close(self) -> None:
        """Let the engine forget the conversation."""
        await self.agent.engine.release(self._id)

    def _open_turn(self, observation: str) -> None:
        chat, start = self.agent.chat, len(self.nodes)
        self.nodes.append(Node(ids=chat.user(observation)))
        self.nodes.append(Node(ids=chat.generation, role="assistant"))
        self._turns.append(Turn(range(start, start + 1), range(start + 1, start + 2)))

    def _close_turn(self) -> None:
        """Append what the template writes behind the last completion, now that there is a next message."""
        if not self._turns:
            return
        turn = self._turns[-1]
        if ids := self.agent.chat.close_completion(self.nodes[-1].ids):
            self.nodes.append(Node(ids=ids, role="assistant"))
        self._turns[-1] = Turn(turn.observation, range(turn.action.start, len(self.nodes)))

    def _request(self, prompt: list[int], choices: Choices | None) -> Request:
        ids: list[int] = []
        for index in prompt:
            ids += self.nodes[index].ids
        sampling = SamplingParams(
            temperature=self.agent.temperature,
            max_tokens=choices.longest if choices else self.agent.limits.max_tokens,
            top_k=self.agent.top_k,
            top_p=self.agent.top_p,
            stop_ids=self.agent.chat.stop_ids,
            seed=derive_seed(self.seed, len(self._turns)),
        )
        trie = choices.trie if choices else None
        return Request(prompt=ids, sampling=sampling, session=self._id, parent=self._parent, constraint=trie)

    def _add(self, completion: Completion) -> int:
        self.nodes.append(
            Node(
                ids=completion.ids,
                role="assistant",
                sampled=True,
                logprobs=completion.logprobs,
                entropies=completion.entropies,
                allowed=completion.allowed,
                weight_version=completion.weight_version,
                versions=completion.versions,
            )
        )
        return len(self.nodes) - 1

    def _record_prompt(self, prompt: list[int], completion: int) -> list[int] | None:
        """`None` if the prompt is the previous one, the previous completion and all nodes since."""
        known, self._expected = self._expected, [*prompt, completion]
        start = known[-1] + 1 if known else 0
        return None if prompt == [*(known or ()), *range(start, completion)] else prompt


def _told(part: object) -> str:
    """Type and settings of a part, the same in every process."""
    return repr(part).removesuffix("()") if is_dataclass(part) else type(part).__qualname__
