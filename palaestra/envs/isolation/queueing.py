"""How many instances of one environment may exist at once."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from palaestra.envs.places import Places
from palaestra.envs.registry import EnvSpec
from palaestra.errors import EnvError

_PLACES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Places]] = WeakKeyDictionary()
"""By event loop and environment id: loops do not wait for each other."""


def places(spec: EnvSpec) -> Places | None:
    """The places of the running loop for this environment; `None` where there is no limit.

    Raises:
        EnvError: others use, under the same id, places of another number.
    """
    most = spec.placement.concurrency
    if most is None:
        return None
    for loop in [loop for loop in _PLACES if loop.is_closed()]:
        del _PLACES[loop]  # who still waits there would keep it for ever
    of_loop = _PLACES.setdefault(asyncio.get_running_loop(), {})
    found = of_loop.get(spec.id)
    if found is None or (found.most != most and found.idle):
        found = of_loop[spec.id] = Places(most)
    if found.most != most:
        raise EnvError(f"{spec.id!r} runs with concurrency={found.most} already, and not {most}; give both the same")
    return found
