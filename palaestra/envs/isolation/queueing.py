"""Places: how many instances of one environment may exist at once."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from palaestra.envs.registry import EnvSpec

_PLACES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = WeakKeyDictionary()
"""By event loop and environment id: loops do not wait for each other."""


def places(spec: EnvSpec) -> asyncio.Semaphore | None:
    """The places of the running loop for this environment; `None` where there is no limit.

    The first spec of an id that is asked for sets the number.
    """
    if spec.placement.concurrency is None:
        return None
    of_loop = _PLACES.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault(spec.id, asyncio.Semaphore(spec.placement.concurrency))
