"""Back ends that all environments of an event loop share, each open as long as somebody uses it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import Any

from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.core import Backend

_engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Engine]] = weakref.WeakKeyDictionary()


class Engine:
    """A back end and how many use it."""

    def __init__(self, key: str, backend: Backend) -> None:
        self.key, self.backend = key, backend
        self.users = 0

    async def give_back(self) -> None:
        """Use it no more; whoever is the last closes it."""
        self.users -= 1
        if self.users:
            return
        engines = _engines.get(asyncio.get_running_loop(), {})
        if engines.get(self.key) is self:
            del engines[self.key]
        await self.backend.close()


def borrow(name: str, settings: Mapping[str, Any]) -> Engine:
    """The back end of that name and those settings; `Engine.give_back` gives it back, in the same event loop.

    Raises:
        UnknownNameError: there is no such back end.
        MissingExtraError: what it needs is not installed.
    """
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    key = f"{name} {sorted(settings.items())!r}"
    if key not in engines:
        engines[key] = Engine(key, open_backend(name, **settings))
    engines[key].users += 1
    return engines[key]
