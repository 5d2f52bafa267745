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
_backends: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bytes, Backend]] = WeakKeyDictionary()
_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def supplied(where: Where, spec: SandboxSpec) -> Sandbox:
    """A sandbox, to be closed by who asked for it.

    Raises:
        SandboxError: it cannot be started.
    """
    backends = _backends.setdefault(asyncio.get_running_loop(), {})
    key = msgspec.json.encode((where.name, where.settings))
    if key not in backends:
        backends[key] = open_backend(where.name, **where.settings)
    return await backends[key].start(spec)


@asynccontextmanager
async def turn(where: Where) -> AsyncIterator[None]:
    """Wait until a processor is free, so that the clocks of calls tell of them and not of the crowd."""
    if not where.local:
        yield
        return
    async with _gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_MOST_AT_ONCE)):
        yield
