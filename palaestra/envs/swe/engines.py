"""Back ends that all environments of an event loop share, each open as long as somebody uses it."""

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
_engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Engine]] = weakref.WeakKeyDictionary()


class Engine:
    """A back end, sandboxes that it keeps ready, and how many use it."""

    def __init__(self, key: str, backend: Backend, ready: int) -> None:
        self.key, self.backend, self.ready = key, backend, ready
        self.users = 0
        self._pools: dict[bytes, Pool] = {}
        """By spec, the one that was asked for last at the end."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox, one that is ready where some are kept so.

        Raises:
            ConfigError, SandboxError: as `Backend.start`.
        """
        if not self.ready:
            return await self.backend.start(spec)
        key = msgspec.json.encode(spec)
        pool = self._pools.pop(key, None) or Pool(self.backend, spec, self.ready)
        self._pools[key] = pool
        if len(self._pools) > MOST_POOLS:
            await self._pools.pop(next(iter(self._pools))).close()
        return await pool.take()

    async def give_back(self) -> None:
        """Use it no more; whoever is the last closes it."""
        self.users -= 1
        if self.users:
            return
        engines = _engines.get(asyncio.get_running_loop(), {})
        if engines.get(self.key) is self:
            del engines[self.key]
        try:
            await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        finally:
            await self.backend.close()


def borrow(name: str, settings: Mapping[str, Any], ready: int = 0) -> Engine:
    """The back end of that name and those settings; `Engine.give_back` gives it back, in the same event loop.

    Args:
        name: of the back end.
        settings: its own.
        ready: how many sandboxes of each kind are kept ready.

    Raises:
        UnknownNameError: there is no such back end.
        MissingExtraError: what it needs is not installed.
    """
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    key = f"{name} {ready} {sorted(settings.items())!r}"
    if key not in engines:
        engines[key] = Engine(key, open_backend(name, **settings), ready)
    engines[key].users += 1
    return engines[key]
