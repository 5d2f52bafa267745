"""Where sandboxes of code tools come from: one back end of a kind for all environments of an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import msgspec

from palaestra.envs.codetools.where import Where
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.spec import SandboxSpec

_MOST_AT_ONCE = max(2, os.cpu_count() or 2)


async def supplied(where: Where, spec: SandboxSpec) -> Sandbox:
    """A sandbox, to be closed by who asked for it.

    Raises:
        SandboxError: it cannot be started.
    """
    return await _supply().sandbox(where, spec)


@asynccontextmanager
async def turn(where: Where) -> AsyncIterator[None]:
    """Wait until a processor is free, so that the clocks of calls tell of them and not of the crowd."""
    if not where.local:
        yield
        return
    async with _supply().gate:
        yield


class _Supply:
    """The back ends of an event loop. They are closed when its end cancels what still runs there."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(_MOST_AT_ONCE)
        self._backends: dict[bytes, Backend] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def sandbox(self, where: Where, spec: SandboxSpec) -> Sandbox:
        key = msgspec.json.encode((where.name, where.settings))
        if key not in self._backends:
            self._backends[key] = open_backend(where.name, **where.settings)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="palaestra code tools")
        return await self._backends[key].start(spec)

    async def _keep(self) -> None:
        try:
            await asyncio.Future()
        finally:
            backends, self._backends = list(self._backends.values()), {}
            await asyncio.gather(*(backend.close() for backend in backends), return_exceptions=True)


_supplies: WeakKeyDictionary[asyncio.AbstractEventLoop, _Supply] = WeakKeyDictionary()


def _supply() -> _Supply:
    return _supplies.setdefault(asyncio.get_running_loop(), _Supply())
