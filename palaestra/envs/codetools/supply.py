"""Where sandboxes of code tools come from: sources that all environments of an event loop share."""

from __future__ import annotations

import asyncio
import os
from weakref import WeakKeyDictionary

import msgspec

from palaestra.envs.codetools.where import Where
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.core import Sandbox
from palaestra.sandboxes.pool import Pool
from palaestra.sandboxes.spec import SandboxSpec

_MOST_AT_ONCE = max(2, os.cpu_count() or 2)
_READY = 1
"""Sandboxes of a kind that are kept ready: a crowd has to wait for processors anyway."""


class Source:
    """Starts sandboxes of one spec, and keeps one ready where several use it. It is open as long as somebody does."""

    def __init__(self, key: bytes, where: Where, spec: SandboxSpec) -> None:
        self.key, self.users = key, 0
        self._backend, self._spec = open_backend(where.name, **where.settings), spec
        self._pool: Pool | None = None

    async def take(self) -> Sandbox:
        """A sandbox, to be closed by who asked for it.

        Raises:
            SandboxError: it cannot be started.
        """
        if self.users < 2 and self._pool is None:
            return await self._backend.start(self._spec)  # one that nobody takes would be wasted
        if self._pool is None:
            self._pool = Pool(self._backend, self._spec, _READY, at_once=_MOST_AT_ONCE)
        return await self._pool.take()

    async def give_back(self) -> None:
        """Use it no more; whoever is the last closes it."""
        self.users -= 1
        if self.users:
            return
        sources = _sources.get(asyncio.get_running_loop(), {})
        if sources.get(self.key) is self:
            del sources[self.key]
        if self._pool is not None:
            await self._pool.close()
        await self._backend.close()


_sources: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bytes, Source]] = WeakKeyDictionary()
_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def borrow(where: Where, spec: SandboxSpec) -> Source:
    """The source of such sandboxes; `Source.give_back` gives it back, in the same event loop.

    Raises:
        MissingExtraError: what the back end needs is not installed.
        TypeError: the back end has no such settings.
    """
    sources = _sources.setdefault(asyncio.get_running_loop(), {})
    key = msgspec.json.encode((where.name, where.settings, spec))
    if key not in sources:
        sources[key] = Source(key, where, spec)
    sources[key].users += 1
    return sources[key]


def gate() -> asyncio.Semaphore:
    """Lets as many calls in as there are processors, so that the clocks of calls tell of them and not of the crowd."""
    return _gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_MOST_AT_ONCE))
