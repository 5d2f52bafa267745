"""Which optional fields of a request an endpoint takes.

Endpoints that speak alike differ in what they refuse: OpenAI refuses what vLLM adds, some know no `seed`, newer models
of OpenAI's want `max_completion_tokens`. The first request finds out, from the richest dialect down: one that is
refused as malformed is sent again in the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Dialect:
    """One set of optional fields."""

    tokens: bool = False
    """Asks for token ids and log-probs, and switches off what a server would add to the sampling by itself."""
    seed: bool = False
    limit: str = "max_tokens"
    """The field for the most tokens of an answer."""
    defaults: bool = True
    """Says temperature and top-p also where they are 1."""


DIALECTS: Sequence[Dialect] = (
    Dialect(tokens=True, seed=True),
    Dialect(seed=True),
    Dialect(),
    Dialect(limit="max_completion_tokens", defaults=False),
)
"""From the one that asks for most to the one that asks for least."""

MALFORMED = (400, 422)
"""Statuses with which endpoints refuse fields that they do not know."""
_TOKEN_FIELDS: Mapping[str, Any] = {
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, before it is put in a dialect."""

    content: Mapping[str, Any]
    """`messages` or `prompt`, and what belongs to them."""
    logprobs: Any
    """What asks for log-probs of the sampled tokens: `True` in chats, 0 in completions."""
    token_fields: Mapping[str, Any] = field(default_factory=dict)
    """More fields for dialects that ask for tokens."""
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int
    tokens: int
    """Estimate of what prompt and answer take."""

    def payload(self, model: str, dialect: Dialect) -> dict[str, Any]:
        """The body of the request."""
        fields: dict[str, Any] = {"model": model, **self.content, dialect.limit: self.max_tokens}
        if dialect.defaults or self.temperature != 1:
            fields["temperature"] = self.temperature
        if dialect.defaults or self.top_p != 1:
            fields["top_p"] = self.top_p
        if dialect.seed:
            fields["seed"] = self.seed % (1 << 31)  # what every server can hold
        if dialect.tokens:
            fields |= {**_TOKEN_FIELDS, **self.token_fields, "top_k": self.top_k, "logprobs": self.logprobs}
        return fields
