"""What the engine asks of vLLM, wherever that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec


class Adapter(NamedTuple):
    """A LoRA adapter in use."""

    name: str
    """Of one version only, so that the cache of one is never taken for another's."""
    number: int
    """vLLM's id of it; above 0."""
    folder: Path


class Span(NamedTuple):
    """Tokens `[start, end)` of a completion, sampled by weights of one label."""

    label: str
    start: int
    end: int


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """A completion as vLLM tells it."""

    ids: list[int]
    logprobs: list[float]
    finish: str
    """`stop`, `length`, or something that went wrong."""
    spans: list[Span] = []
    """Where vLLM tells it; in order."""


class Transport(Protocol):
    """vLLM, in this process or behind HTTP."""

    context_length: int
    """Known once it was started."""

    async def start(self) -> None:
        """Start it, or reach it.

        Raises:
            EngineError: it does not start, or is not there.
        """

    async def sample(self, prompt: list[int], params: Mapping[str, Any], *, salt: str, adapter: Adapter | None) -> Raw:
        """Complete one prompt; cancelling gives it up.

        Args:
            prompt: token ids.
            params: of vLLM's `SamplingParams`, by name.
            salt: requests with different salts share no cache.
            adapter: to sample with.

        Raises:
            EngineError: it failed, or died.
        """

    async def call(self, method: str, *arguments: str) -> list[Any]:
        """Call a method on every worker; their results.

        Raises:
            EngineError: it failed, or died.
        """

    async def pause(self) -> None:
        """Stop in the middle of completions, and forget every cached key and value, running requests' too."""

    async def resume(self) -> None:
        """Go on; what had been sampled is read again, by the weights of now."""

    async def label(self, label: str) -> None:
        """Name the weights: what `Raw.spans` says from now on."""

    async def transfer(self, step: str, body: Mapping[str, Any]) -> None:
        """One step of a transfer of weights by vLLM's own engines: the name of a method of `AsyncLLM`, which is that of
        an endpoint, too, and its arguments.

        Raises:
            EngineError: it failed, or died.
        """

    async def add_adapter(self, adapter: Adapter) -> None:
        """Load an adapter."""

    async def remove_adapter(self, adapter: Adapter) -> None:
        """Forget an adapter."""

    async def close(self) -> None:
        """End what was started here."""
