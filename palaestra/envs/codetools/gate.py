"""How many calls of code tools run at the same time."""

from __future__ import annotations

import asyncio
import os
from weakref import WeakKeyDictionary

AT_ONCE = max(2, os.cpu_count() or 2)
"""In one event loop."""
_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def gate() -> asyncio.Semaphore:
    """Lets as many calls in as there are processors, so that the clocks of calls tell of them and not of the crowd."""
    return _gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
