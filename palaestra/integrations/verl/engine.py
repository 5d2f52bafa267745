"""verl's inference servers as an engine of ours: token ids in, token ids and log-probs out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from palaestra.agents.engines.base import Completion, Request
from palaestra.errors import EngineError


class ServerEngine:
    """Asks `LLMServerClient.generate` for one conversation, which stays with one server, whose prefix cache knows it.

    verl's prompt is the conversation's first one, and its response all that comes after.
    """

    def __init__(self, client: Any, *, prompt: int, response: int, completion: int, version: int = 0) -> None:
        """Args:
        client: verl's `server_manager`.
        prompt: most tokens of verl's prompt.
        response: most tokens of verl's response.
        completion: most tokens of one completion.
        version: of the weights, noted on what is sampled.
        """
        self._client, self._version, self._response = client, version, response
        self._window = prompt + completion
        self._begun = False

    @property
    def weight_version(self) -> int:
        """Of the weights that sample now."""
        return self._version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together: at first the prompt must have room, then the response."""
        return self._window

    async def generate(self, request: Request) -> Completion:
        """Sample a completion.

        Raises:
            EngineError: choices are to be constrained, which verl's servers cannot, or log-probs are missing.
        """
        if request.constraint is not None:
            raise EngineError("verl's servers cannot restrict what is sampled: use agent.action: text")
        if not self._begun:
            self._begun, self._window = True, len(request.prompt) + self._response
        sampling = request.sampling
        output = await self._client.generate(
            request_id=request.session,
            prompt_ids=list(request.prompt),
            sampling_params={
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or -1,
                "max_tokens": sampling.max_tokens,
                "stop_token_ids": list(sampling.stop_ids),
                "seed": sampling.seed % 2**31,
                "logprobs": True,
            },
        )
        ids = list(output.token_ids)
        if not ids or output.log_probs is None or len(output.log_probs) != len(ids):
            raise EngineError("verl's server sent no log-probs: set actor_rollout_ref.rollout.calculate_log_probs=true")
        logprobs = [float(value) for value in output.log_probs]
        if not all(map(math.isfinite, logprobs)):
            raise EngineError("verl's server sent log-probs that are not finite")
        finish = "stop" if ids[-1] in sampling.stop_ids else "length"
        return Completion(ids=ids, logprobs=logprobs, entropies=[], finish=finish, weight_version=self._version)

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """verl moves the weights; only the version is noted."""
        self._version = version

    async def release(self, session: str) -> None:
        """Nothing is kept here."""

    async def close(self) -> None:
        """Nothing is open here."""
