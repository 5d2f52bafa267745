"""An engine that replays given completions: for tests of agents, environments and rollouts without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from palaestra.agents.engines.base import Completion, Request
from palaestra.errors import EngineError

Script = Callable[[Request], Sequence[int]]
"""Token ids to answer a request with."""


class ScriptedEngine:
    """Answers each request with the next of `completions`, or with what a function makes of the request.

    Log-probs and entropies are those of a policy that is certain: 0. A completion is cut at its first stop id, at
    `max_tokens` and at the context, as a model's is; `requests` keeps everything that was asked.

    Example: `ScriptedEngine([[7, 2], [8, 2]])` answers `[7, 2]`, then `[8, 2]`, then raises.
    """

    def __init__(
        self, completions: Sequence[Sequence[int]] | Script, *, context_length: int = 1 << 20, cycle: bool = False
    ) -> None:
        """Replay `completions`, from the start again after the last if `cycle`."""
        self.requests: list[Request] = []
        self._completions, self._cycle = completions, cycle
        self._context_length, self._version, self._closed = context_length, 0, False

    @property
    def weight_version(self) -> int:
        """Version given to the last `update_weights`; 0 before."""
        return self._version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._context_length

    async def generate(self, request: Request) -> Completion:
        """Answer with the next completion.

        Raises:
            EngineError: The engine is closed, the prompt is empty, the script is over, or the script's completion is
                not one that the request's constraint allows.
        """
        if self._closed:
            raise EngineError("the engine is closed")
        if not request.prompt:
            raise EngineError("the prompt is empty: an engine needs at least one token to continue")
        self.requests.append(request)
        room = self._context_length - len(request.prompt)
        limit = max(0, min(request.sampling.max_tokens, room))
        ids, stopped = _cut(self._next(request), limit, request.sampling.stop_ids) if limit else ([], False)
        allowed, over = _walk(request, ids)
        return Completion(
            ids=ids,
            logprobs=[0.0] * len(ids),
            entropies=[0.0] * len(ids),
            allowed=allowed,
            finish="stop" if stopped or over else "length",
            weight_version=self._version,
        )

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Take the version; there are no weights."""
        self._version = version

    async def release(self, session: str) -> None:
        """Nothing is cached."""

    async def close(self) -> None:
        """Refuse requests from now on."""
        self._closed = True

    def _next(self, request: Request) -> Sequence[int]:
        if callable(self._completions):
            return self._completions(request)
        k = len(self.requests) - 1
        if self._cycle and self._completions:
            k %= len(self._completions)
        if k >= len(self._completions):
            raise EngineError(f"the script has {len(self._completions)} completions, and all were used")
        return self._completions[k]


def _cut(ids: Sequence[int], limit: int, stop_ids: Sequence[int]) -> tuple[list[int], bool]:
    """The ids up to the first stop id or the limit, and whether a stop id ended them."""
    for n, token in enumerate(ids[:limit], 1):
        if token in stop_ids:
            return list(ids[:n]), True
    return list(ids[:limit]), False


def _walk(request: Request, ids: list[int]) -> tuple[list[list[int]] | None, bool]:
    """What the constraint allowed for each id (`None` without one), and whether it is over."""
    constraint = request.constraint
    if constraint is None:
        return None, False
    node, allowed = constraint.root, []
    for token in ids:
        choices = constraint.allowed(node)
        if token not in choices:
            raise EngineError(f"the script's completion {ids} is not allowed: {token} came where {choices} are")
        allowed.append(choices)
        node = constraint.child(node, token)
    return allowed, not node
