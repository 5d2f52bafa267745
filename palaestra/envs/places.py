"""Places that are shared out: who asks for one waits until there is one."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from palaestra.errors import EnvError


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Who waits."""

    n: int
    """For how many."""
    more: bool
    """They have one already."""
    first: bool
    """They go before others."""
    ready: asyncio.Future[None]
    """What wakes them."""


class Places:
    """Places of one event loop, handed out in the order in which they are asked for; some go first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._queue: deque[_Waiting] = deque()

    @property
    def idle(self) -> bool:
        """Whether nobody has one or waits for one."""
        return not self._taken and not self._queue

    async def take(self, n: int = 1, *, more: bool = False, first: bool = False) -> None:
        """Take `n` places at once, never some of them; wait until there are so many.

        Args:
            n: how many.
            more: whether who asks has a place already, and keeps it meanwhile.
            first: go before all who wait without it; among those with it the order is that of asking.

        Raises:
            EnvError: there never can be so many.
        """
        if n + more > self.most:
            raise EnvError(f"{n + more} places are needed at once and concurrency={self.most} limits them; raise it")
        entry = _Waiting(n, more, first, asyncio.get_running_loop().create_future())
        ahead = sum(1 for each in self._queue if each.first)
        self._queue.insert(ahead if first else len(self._queue), entry)
        self._hand_out()
        try:
            await entry.ready
        except BaseException:
            with suppress(ValueError):
                self._queue.remove(entry)
            if entry.ready.done() and not entry.ready.cancelled() and entry.ready.exception() is None:
                self._taken -= n
            self._hand_out()
            raise

    def give_back(self) -> None:
        """Give one back."""
        self._taken -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._queue:
            n, ready = self._queue[0].n, self._queue[0].ready
            if not ready.done():
                if self._taken + n > self.most:
                    break
                self._taken += n
                ready.set_result(None)
            self._queue.popleft()
        self._unlock()

    def _unlock(self) -> None:
        """Where everybody who has a place waits for more, nobody would ever give one back: send the last one away."""
        locked = [entry for entry in self._queue if entry.more and not entry.ready.done()]
        if locked and len(locked) == self._taken:
            self._queue.remove(locked[-1])
            locked[-1].ready.set_exception(
                EnvError(
                    f"every place is held by an environment that waits for more to fork itself; raise concurrency, "
                    f"which is {self.most}, or fork fewer at once"
                )
            )
            self._hand_out()
