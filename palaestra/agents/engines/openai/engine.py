"""The engine on an endpoint: prompt token ids in, sampled token ids with log-probs out, by `/completions`.

For endpoints that tell token ids, as `vllm serve` does. The agent on it is the ordinary language-model agent with the
model's tokenizer, so that no token is ever encoded twice, and what it plays can be trained on. `palaestra.agents.api`
is for all other endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.openai.answers import TextAnswer, checked_logprobs
from palaestra.agents.engines.openai.client import Client
from palaestra.agents.engines.openai.dialect import Ask
from palaestra.agents.engines.openai.exactness import LogprobsMode, mismatch
from palaestra.agents.engines.openai.usage import KEY, Usage
from palaestra.errors import EngineError
from palaestra.trajectories.record import UNTRAINABLE

UNKNOWN_LENGTH = 1 << 24
"""Context length of a model that nobody told: its endpoint refuses what is too long."""


class OpenAIEngine:
    """Completes token ids at an endpoint, whose weights nobody changes from here."""

    def __init__(
        self, client: Client, *, context_length: int = UNKNOWN_LENGTH, logprobs: LogprobsMode = "raw", version: int = 0
    ) -> None:
        """Nothing is sent yet.

        Args:
            client: of the endpoint.
            context_length: of the model, where it is known.
            logprobs: which ones the endpoint tells.
            version: of its weights, noted on completions.
        """
        self.client, self._logprobs = client, logprobs
        self._context_length, self._version = context_length, version
        self._usage: dict[str, Usage] = {}
        self._reasons: dict[str, str] = {}
        """Why a conversation cannot be trained on."""

    @property
    def weight_version(self) -> int:
        """As it was given."""
        return self._version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._context_length

    async def generate(self, request: Request) -> Completion:
        """Complete one prompt.

        Raises:
            ContextFullError: the prompt is too long for the model.
            EngineError: there is no answer, it has no token ids, or the request has a constraint.
        """
        if request.constraint is not None:
            raise EngineError("an endpoint cannot be held to a trie of tokens; use the action format text")
        if not request.prompt:
            raise EngineError("the prompt is empty: an engine needs at least one token to continue")
        usage = self._usage.setdefault(request.session, Usage())
        answer = await self.client.text(_ask(request), usage)
        return self._completion(request, answer)

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Refused.

        Raises:
            EngineError: always.
        """
        raise EngineError("the weights behind an endpoint cannot be changed from here; train with another engine")

    def notes(self, session: str) -> Mapping[str, Any]:
        """Tokens and cost of a conversation, and why it cannot be trained on if so."""
        notes: dict[str, Any] = {}
        if usage := self._usage.get(session):
            notes[KEY] = usage.noted()
        if reason := self._reasons.get(session):
            notes[UNTRAINABLE] = reason
        return notes

    async def release(self, session: str) -> None:
        """Forget what was counted."""
        self._usage.pop(session, None)
        self._reasons.pop(session, None)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    def _completion(self, request: Request, answer: TextAnswer) -> Completion:
        host, sampling, choice = self.client.address.host, request.sampling, answer.choices[0]
        ids, told = answer.sampled
        if ids is None or not 0 < len(ids) <= sampling.max_tokens:
            found = "no" if ids is None else f"{len(ids)}"
            raise EngineError(
                f"{host} answers with {found} token ids where 1 to {sampling.max_tokens} were asked for; token ids are "
                "told by vllm serve from 0.10.2 on, other endpoints are for agents without a tokenizer"
            )
        if choice.prompt_token_ids is not None and choice.prompt_token_ids != list(request.prompt):
            raise EngineError(f"{host} continued another prompt than it was given")
        logprobs = checked_logprobs(told, len(ids), host)
        reason = f"{host} told no log-probs" if logprobs is None else self._mismatch(request)
        if reason:
            self._reasons[request.session] = reason
        return Completion(
            ids=ids,
            logprobs=[] if logprobs is None else logprobs,
            entropies=[],
            finish="length" if choice.finish_reason == "length" else "stop",
            weight_version=self._version,
        )

    def _mismatch(self, request: Request) -> str:
        sampling = request.sampling
        return mismatch(self._logprobs, sampling.temperature, sampling.top_k, sampling.top_p)


def _ask(request: Request) -> Ask:
    sampling = request.sampling
    more = {"stop_token_ids": list(sampling.stop_ids), "skip_special_tokens": False, "add_special_tokens": False}
    return Ask(
        content={"prompt": list(request.prompt)},
        logprobs=0,
        token_fields=more,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        tokens=len(request.prompt) + sampling.max_tokens,
    )
