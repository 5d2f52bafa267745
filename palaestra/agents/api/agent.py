"""The API agent: a conversation that an endpoint continues.

Its trajectories hold text, and token ids with log-probs where the endpoint tells them. Only then can they be trained
on; of the others the record says why not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palaestra.agents.agent import Decision
from palaestra.agents.api.conversation import Conversation, size_of
from palaestra.agents.api.formats import Offer, ReplyFormat, TextReply, known
from palaestra.agents.api.reply import Reply, read_reply
from palaestra.agents.api.spans import Spans
from palaestra.agents.context import ContextPolicy, FullContext
from palaestra.agents.engines.base import ContextFullError
from palaestra.agents.engines.openai.client import Client
from palaestra.agents.engines.openai.dialect import Ask
from palaestra.agents.engines.openai.exactness import LogprobsMode, mismatch
from palaestra.agents.engines.openai.usage import KEY, Usage
from palaestra.envs.core import Env, Info, SupportsTools
from palaestra.seeds import derive_seed
from palaestra.trajectories.record import UNTRAINABLE, Node

_CHARACTERS = 3
"""Of a token, for the estimate of a prompt's tokens before the endpoint counts them."""


@dataclass(frozen=True)
class ApiAgent:
    """A model behind an endpoint that acts by writing, or by calling tools."""

    engine: Client
    """The endpoint; whoever opened the agent closes it."""
    actions: ReplyFormat = field(default_factory=TextReply)
    context: ContextPolicy = field(default_factory=FullContext)
    max_tokens: int = 1024
    """Most tokens of one answer."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    system: str | None = None
    """System message; `None`: the action format's; empty: none."""
    logprobs: LogprobsMode = "raw"
    """Which log-probs the endpoint tells."""

    @property
    def name(self) -> str:
        """Model and endpoint."""
        return str(self.engine.address)

    @property
    def instructions(self) -> str:
        """The system message; empty for none."""
        return self.actions.system if self.system is None else self.system

    @property
    def identity(self) -> dict[str, Any]:
        """What decides, as far as can be seen from here, what is sampled."""
        return {
            "weights": self.name,
            "action format": self.actions.name,
            "context": repr(self.context),
            "max_tokens": self.max_tokens,
            "system message": self.instructions,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
        }

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> ApiSession:
        """Begin a conversation."""
        return ApiSession(self, seed, env, Conversation.begin(self.instructions), Spans())

    def fork(self, session: ApiSession, *, seed: int, env: Env[Any, Any] | None = None) -> ApiSession:
        """A conversation that begins like `session`, up to the answer before its last."""
        return session.fork(seed, env)


class ApiSession:
    """One conversation. `act` is called for one turn after the other."""

    def __init__(
        self, agent: ApiAgent, seed: int, env: Env[Any, Any] | None, conversation: Conversation, spans: Spans
    ) -> None:
        self.agent, self.seed = agent, seed
        self.usage = Usage()
        self._talk, self._spans = conversation, spans
        self._tools: Sequence[Mapping[str, Any]] = env.tools() if isinstance(env, SupportsTools) else ()
        self._untrainable = agent.actions.constrained or mismatch(
            agent.logprobs, agent.temperature, agent.top_k, agent.top_p
        )
        self._before = (conversation.calls, 0, list[int]())
        """Open calls, number of nodes and `Spans.last` before the last `act`."""

    @property
    def nodes(self) -> list[Node]:
        """Token spans, where the endpoint tells ids."""
        return self._spans.nodes

    @property
    def notes(self) -> Mapping[str, Any]:
        """Tokens and cost, and why the episode cannot be trained on if so."""
        return {KEY: self.usage.noted(), **({UNTRAINABLE: self._untrainable} if self._untrainable else {})}

    async def act(self, observation: str, info: Info) -> Decision:
        """Show the observation to the model and read its answer as an action.

        Raises:
            EngineError: there is no answer.
            EnvError: the environment lacks what the action format needs.
        """
        agent = self.agent
        self._before = self._talk.calls, len(self._spans.nodes), list(self._spans.last)
        offer = agent.actions.offer(info, self._tools)
        self._talk.show(observation + offer.hint)
        try:
            answer = await agent.engine.chat(self._ask(offer), self.usage)
        except ContextFullError:
            if len(self._talk.turns) == 1:
                raise  # no episode will fit: the model or the settings are wrong, and the endpoint says how
            return Decision(status="overflow")
        reply = read_reply(answer, max_tokens=agent.max_tokens, host=agent.engine.address.host, hide=agent.engine.hide)
        self.usage.cut_off += reply.cut_off
        parsed = agent.actions.read(reply, offer)
        self._talk.answer(reply, calls=bool(reply.calls) and known(reply, offer))
        completion, prompt = self._entered(reply)
        return Decision(text=parsed.text, error=parsed.error, completion=completion, prompt=prompt)

    def fork(self, seed: int, env: Env[Any, Any] | None) -> ApiSession:
        """The conversation as it was before the last `act`. Nodes are shared, as nothing changes them."""
        calls, count, last = self._before
        spans = Spans(self._spans.nodes[:count], list(last))
        other = ApiSession(self.agent, seed, env, self._talk.before_last(calls), spans)
        other._untrainable = self._untrainable
        return other

    async def close(self) -> None:
        """Nothing is held."""

    def _ask(self, offer: Offer) -> Ask:
        agent = self.agent
        messages = self._talk.prompt(agent.context)
        return Ask(
            content={"messages": messages, **offer.fields},
            logprobs=True,
            temperature=agent.temperature,
            top_p=agent.top_p,
            top_k=agent.top_k,
            max_tokens=agent.max_tokens,
            seed=derive_seed(self.seed, len(self._talk.turns)),
            tokens=size_of(messages) // _CHARACTERS + agent.max_tokens,
        )

    def _entered(self, reply: Reply) -> tuple[int, list[int] | None]:
        """The answer's node and the step's prompt; -1 where the endpoint tells no ids."""
        host, sampled = self.agent.engine.address.host, reply.sampled
        if sampled is None:
            self._untrainable = self._untrainable or f"{host} tells no token ids"
            return -1, None
        if sampled.logprobs is None:
            self._untrainable = self._untrainable or f"{host} tells no log-probs"
        return self._spans.add(sampled)
