"""Back ends that all who work in an event loop share, each open as long as somebody uses it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import Any

import msgspec

from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.pool import Pool
from palaestra.sandboxes.spec import SandboxSpec

MOST_POOLS = 4
"""Kinds of sandboxes that are kept ready; the one that was not asked for the longest goes first."""
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Shared]] = weakref.WeakKeyDictionary()


class Shared:
    """A back end, sandboxes that it keeps ready, and how many use it."""

    def __init__(self, key: str, backend: Backend, ready: int, crowd: int, at_once: int) -> None:
        """See `borrow`."""
        self.key, self.backend, self.ready = key, backend, ready
        self.users = 0
        self._crowd, self._at_once = crowd, at_once
        self._pools: dict[bytes, Pool] = {}
        """By spec, the one that was asked for last at the end."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox, to be closed by who asked for it; one that is ready where some are kept so.

        Raises:
            ConfigError, SandboxError: as `Backend.start`.
        """
        key = msgspec.json.encode(spec)
        if not self.ready or (self.users < self._crowd and key not in self._pools):
            return await self.backend.start(spec)
        pool = self._pools.pop(key, None) or Pool(self.backend, spec, self.ready, at_once=self._at_once)
        self._pools[key] = pool
        if len(self._pools) > MOST_POOLS:
            await self._pools.pop(next(iter(self._pools))).close()
        return await pool.take()

    async def give_back(self) -> None:
        """Use it no more; whoever is the last closes it."""
        self.users -= 1
        if self.users:
            return
        shared = _shared.get(asyncio.get_running_loop(), {})
        if shared.get(self.key) is self:
            del shared[self.key]
        try:
            await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        finally:
            await self.backend.close()


def borrow(name: str, settings: Mapping[str, Any], ready: int = 0, *, crowd: int = 1, at_once: int = 4) -> Shared:
    """The back end of that name and those settings; `Shared.give_back` gives it back, in the same event loop.

    Args:
        name: of the back end.
        settings: its own.
        ready: how many sandboxes of each kind are kept ready.
        crowd: how many users there must be before any are: to one who takes few, those that wait are wasted.
        at_once: how many of a kind are started at once to be ready.

    Raises:
        UnknownNameError: there is no such back end.
        MissingExtraError: what it needs is not installed.
        TypeError: the back end has no such settings.
    """
    shared = _shared.setdefault(asyncio.get_running_loop(), {})
    key = repr((name, ready, crowd, at_once, sorted(settings.items())))
    if key not in shared:
        shared[key] = Shared(key, open_backend(name, **settings), ready, crowd, at_once)
    shared[key].users += 1
    return shared[key]
