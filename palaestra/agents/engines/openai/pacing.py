"""Not more than an endpoint allows: so many requests, and tokens, within any minute."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from palaestra.agents.engines.openai.limits import ApiLimits

MINUTE = 60.0
_TICK = 1e-3
"""Seconds that a wait takes at least, so that rounding never makes a loop of it."""


@dataclass(slots=True)
class Entry:
    """Something that was let through."""

    when: float
    """By the event loop's clock."""
    amount: int
    """Of tokens or requests; may be corrected once the true amount is known."""


@dataclass(slots=True)
class Window:
    """At most `limit` units within any 60 seconds. Something larger than the limit goes through alone.

    A bucket that refills would let through twice its size within its first minute, which is what endpoints refuse.
    """

    limit: int
    """0 for no limit."""
    _entries: deque[Entry] = field(default_factory=deque)

    def wait(self, amount: int, now: float) -> float:
        """Seconds until there may be room for `amount`; 0 if there is."""
        while self._entries and self._entries[0].when + MINUTE <= now:
            self._entries.popleft()
        if not self._entries or sum(entry.amount for entry in self._entries) + amount <= self.limit:
            return 0.0
        return max(self._entries[0].when + MINUTE - now, _TICK)

    def enter(self, amount: int, now: float) -> Entry:
        """Let `amount` through."""
        entry = Entry(now, amount)
        if self.limit:
            self._entries.append(entry)
        return entry


class Pace:
    """When the next request may be sent: first come, first served."""

    def __init__(self, limits: ApiLimits) -> None:
        self._requests, self._tokens = Window(limits.requests_per_minute), Window(limits.tokens_per_minute)
        self._turn = asyncio.Lock()
        self._quiet_until = 0.0

    async def turn(self, tokens: int) -> Entry:
        """Wait until one request that takes so many tokens may be sent; the entry is that of its tokens."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while (wait := self._wait(tokens, loop.time())) > 0:
                await asyncio.sleep(wait)
            self._requests.enter(1, loop.time())
            return self._tokens.enter(tokens, loop.time())

    def hold(self, seconds: float) -> None:
        """Send nothing for so long: the endpoint said so."""
        self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + seconds)

    def _wait(self, tokens: int, now: float) -> float:
        return max(self._quiet_until - now, self._requests.wait(1, now), self._tokens.wait(tokens, now))
