"""Waiting for several things, or for one that must not be left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from palaestra.sandboxes.core import Sandbox

T = TypeVar("T")


async def settled(doing: Coroutine[Any, Any, T]) -> T:
    """Await something to its end, also when cancelled meanwhile; the cancellation comes afterwards."""
    task = asyncio.create_task(doing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def all_or_none(starts: Sequence[Coroutine[Any, Any, Sandbox]]) -> list[Sandbox]:
    """Start several sandboxes at once. When one does not start, or this is cancelled, none is left."""
    tasks = [asyncio.create_task(start) for start in starts]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Sandbox):
                await outcome.close()
        raise
