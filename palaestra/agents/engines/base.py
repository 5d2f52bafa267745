"""The engine contract: prompt token ids in, sampled token ids with log-probs and entropies out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import msgspec

from palaestra.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from palaestra.agents.constraint import TokenTrie


class ContextFullError(EngineError):
    """The prompt is too long for the model. Raised by engines that cannot tell beforehand; the episode overflows."""


class Cut(NamedTuple):
    """The likeliest tokens, as `SamplingParams` defines them."""

    top_k: int
    top_p: float


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How one request samples.

    `top_k` and `top_p` are for evaluation. Whatever they leave out, log-probs and entropies are those of the full
    distribution at the temperature: what a learner would compute, not what the token was drawn with. Training leaves
    them off, or it would learn from another distribution than it samples from.
    """

    temperature: float = 1.0
    """Divides the logits. 0 takes the likeliest token; log-probs and entropies are then those of temperature 1."""
    max_tokens: int = 32
    """Most tokens of one completion, the stop token included."""
    top_k: int = 0
    """Draw from this many likeliest tokens only; 0 for all. Of equally likely ones those with lower ids stay."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens (of those that `top_k` leaves) whose probabilities reach this share of the
    whole; 1 for all."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the completion; the one that ended it is its last id."""
    seed: int = 0
    """Seed of this request's own uniform draws: its tokens do not depend on what else is in the batch."""

    def __post_init__(self) -> None:
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(f"top_k {self.top_k} must be at least 0, and top_p {self.top_p} above 0 and at most 1")

    @property
    def cut(self) -> Cut | None:
        """Which tokens may be drawn; `None` for all."""
        return Cut(self.top_k, self.top_p) if self.top_k or self.top_p < 1 else None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One completion to make."""

    prompt: Sequence[int]
    """Token ids, oldest first. A prompt that extends what the engine saw under the same `session` is not recomputed."""
    sampling: SamplingParams
    session: str = ""
    """Names the conversation whose cached prefix this prompt extends; empty for none."""
    parent: str = ""
    """Names another conversation, from which a new one may copy what both prompts begin with; empty for none."""
    constraint: TokenTrie | None = None
    """Completions that are allowed, as a trie of token ids (each path ends in a stop id); `None` allows every token.
    Log-probs and entropies are those of the distribution renormalised over the tokens that the trie allows."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine sampled. All lists have one entry per sampled token."""

    ids: list[int]
    logprobs: list[float]
    """Log-prob (nats) of each id under the distribution at the temperature, renormalised over what the constraint
    allows."""
    entropies: list[float]
    """Exact entropy (nats) of that distribution; empty if the engine cannot tell."""
    allowed: list[list[int]] | None = None
    """Per token, the sorted ids that the constraint allowed; `None` where there was no constraint."""
    finish: str = "stop"
    """`stop` (a stop id came) or `length` (`max_tokens` or the model's window was reached)."""
    weight_version: int = 0
    """Version of the weights that sampled it, or its first token."""
    versions: list[int] | None = None
    """Of each token, where weights changed on the way; `None`: all `weight_version`."""


@runtime_checkable
class Engine(Protocol):
    """Turns requests into completions; any number of `generate` calls may wait at once."""

    @property
    def weight_version(self) -> int:
        """Version of the weights in use; starts at 0."""

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""

    async def generate(self, request: Request) -> Completion:
        """Complete one prompt. Cancelling the call frees what it holds."""

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Use `weights` (tensors by parameter name) from now on, and forget every cached prefix."""

    async def release(self, session: str) -> None:
        """Forget the cached prefix of a conversation that has ended."""

    async def close(self) -> None:
        """Free the model; waiting requests fail."""


@runtime_checkable
class SupportsNotes(Protocol):
    """An engine that has something to say of each conversation: tokens and cost, for example."""

    def notes(self, session: str) -> Mapping[str, Any]:
        """What the record of the episode shall keep in its `meta`; asked before `release`."""
