"""How many operations an engine is asked for at once: as many as it still answers quickly.

An engine that is asked for too much at once answers each request slowly, then not in time, and then nothing is done.
The governor watches how long operations take. While they take about as long as one alone, one more is let in each
round; when they take much longer, or fail, fewer. What one alone takes is measured anew every so often, by letting
only one in: otherwise a crowd would soon pass for the normal state.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from palaestra.errors import SandboxDaemonError

_QUICK, _SLOW = 2.0, 4.0
"""Times as long as alone: up to which an operation is quick, and from which it is slow."""
_ALONE, _QUICKER = 0.5, 0.25
"""Parts of the way that the time of one alone goes to a new measurement, and to one in a crowd that was quicker."""
_FEWER = 0.75
_LOOK, _LOOKS = 64, 16
"""Operations after which one is measured alone: a fixed number, or so many for each that is let in."""


class Limit:
    """The arithmetic of the governor: how many at once, by how long operations take."""

    def __init__(self, value: float = 4.0, most: int = 64) -> None:
        """Begins with `value`, after a first one alone, and stays between 1 and `most`."""
        self.value = min(float(most), max(1.0, value))
        """How many at once when nothing is measured alone; fractions do not count yet."""
        self._most = most
        self._alone: dict[str, float] = {}
        self._looking, self._count = True, 0
        self._changed = float("-inf")

    @property
    def allowed(self) -> int:
        """How many at once right now."""
        return 1 if self._looking else int(self.value)

    def done(self, kind: str, began: float, now: float, *, alone: bool, crowded: bool) -> None:
        """An operation succeeded.

        Args:
            kind: what it was; each kind is compared with itself.
            began: when, in seconds on any clock.
            now: on the same clock.
            alone: whether no other ran meanwhile.
            crowded: whether others have to wait; if not, nothing is learnt from its being quick.
        """
        seconds = max(now - began, 1e-6)
        before = self._alone.get(kind, seconds)
        part = _ALONE if alone else _QUICKER if seconds < before else 0.0
        self._alone[kind] = before + part * (seconds - before)
        if self._looking:
            self._looking, self._count = not alone, 0
            return
        self._count += 1
        self._looking = self._count >= max(_LOOK, _LOOKS * self.value)
        if seconds > _SLOW * before:
            self._decrease(began, now, _FEWER)
        elif seconds < _QUICK * before and crowded:
            self.value = min(float(self._most), self.value + 1.0 / self.value)

    def failed(self, began: float, now: float) -> None:
        """An operation failed, as they do when there are too many."""
        self._looking = False
        self._decrease(began, now, 0.5)

    def _decrease(self, began: float, now: float, part: float) -> None:
        """Only what began after the last decrease says something about the number as it is."""
        if began >= self._changed:
            self.value = max(1.0, self.value * part)
            self._changed = now


class Governor:
    """Lets operations in, first come, first served. Belongs to one event loop and one engine."""

    def __init__(self, limit: Limit | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Works by `limit`, and measures with `clock`, in seconds."""
        self.limit = limit or Limit()
        """How many at once."""
        self.running = 0
        """Operations that were let in and have not ended."""
        self._clock = clock
        self._admitted = 0
        self._measured = 0
        """Of those that run, the ones with a kind."""
        self._queue: deque[tuple[asyncio.Future[None], str]] = deque()

    @property
    def waiting(self) -> int:
        """Operations that were not let in yet."""
        return len(self._queue)

    @asynccontextmanager
    async def turn(self, kind: str = "") -> AsyncIterator[None]:
        """Wait for a turn, and have it for one operation.

        Args:
            kind: what is done, such as `start`. Operations of one kind should take about as long as each other; those
                of no kind have their turns, and nothing is learnt from how long they take.
        """
        await self._enter(kind)
        began, admitted, alone = self._clock(), self._admitted, self.running == 1
        try:
            yield
        except (SandboxDaemonError, TimeoutError):
            self.limit.failed(began, self._clock())
            raise
        else:
            if kind:
                alone = alone and admitted == self._admitted
                self.limit.done(kind, began, self._clock(), alone=alone, crowded=bool(self._queue))
        finally:
            self._leave(kind)
            self._admit()

    async def _enter(self, kind: str) -> None:
        if not self._queue and self._room(kind):
            self._let_in(kind)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((turn, kind))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came in the same moment: somebody else may have it
                self._leave(kind)
            elif (turn, kind) in self._queue:
                self._queue.remove((turn, kind))
            self._admit()
            raise

    def _room(self, kind: str) -> bool:
        """Those of no kind end no look, so they only go one at a time beside one that may."""
        return self.running < (self.limit.allowed if kind or self._measured else int(self.limit.value))

    def _let_in(self, kind: str) -> None:
        self.running += 1
        self._measured += bool(kind)
        self._admitted += 1

    def _leave(self, kind: str) -> None:
        self.running -= 1
        self._measured -= bool(kind)

    def _admit(self) -> None:
        while self._queue and self._room(self._queue[0][1]):
            turn, kind = self._queue.popleft()
            if not turn.done():
                self._let_in(kind)
                turn.set_result(None)
