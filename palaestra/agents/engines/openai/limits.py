"""What an endpoint may be asked for, how long it may take, and what it charges."""

from __future__ import annotations

import math
from dataclasses import dataclass

from palaestra.errors import ConfigError

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """How much and how long."""

    concurrency: int = 64
    """Requests under way at once."""
    requests_per_minute: int = 0
    """Most requests, retries included, that begin within any 60 seconds; 0 for no limit."""
    tokens_per_minute: int = 0
    """Most tokens, of prompts and answers, within any 60 seconds; 0 for no limit."""
    retries: int = 6
    """How often a request is sent again where that may help."""
    seconds: float = 300.0
    """Of one request, from connecting to the last byte."""
    longest_wait: float = 60.0
    """Seconds that a retry waits at most. A server that asks for more is told to be busy."""
    longest_answer: int = 16 << 20
    """Bytes of one answer."""

    def __post_init__(self) -> None:
        """Raises ConfigError for what cannot be."""
        if self.concurrency < 1 or self.longest_answer < 1:
            raise ConfigError("an endpoint needs room for at least one request at once, and a byte of answer")
        if min(self.requests_per_minute, self.tokens_per_minute, self.retries) < 0:
            raise ConfigError("limits per minute and retries are at least 0")
        if not (0 < self.seconds < math.inf and 0 <= self.longest_wait < math.inf):
            raise ConfigError("a request may take a positive number of seconds, and a retry wait a finite one")


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in whatever currency."""

    prompt: float
    answer: float
    cached: float | None = None
    """Of those tokens of the prompt that the endpoint had kept; as `prompt` where it is not given."""

    def __post_init__(self) -> None:
        """Raises ConfigError for what is no price."""
        given = [self.prompt, self.answer, *([] if self.cached is None else [self.cached])]
        if not all(0 <= price < math.inf for price in given):
            raise ConfigError("a price is 0 or more, for a million tokens")

    def of(self, prompt: int, cached: int, answer: int) -> float:
        """The cost of so many tokens; `cached` are among those of the prompt."""
        kept = self.prompt if self.cached is None else self.cached
        return ((prompt - cached) * self.prompt + cached * kept + answer * self.answer) / MILLION
