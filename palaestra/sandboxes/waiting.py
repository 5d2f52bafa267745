"""Waiting for several things, or for one that must not be left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from palaestra.sandboxes.core import Sandbox

T = TypeVar("T")


async def settled(doing: Coroutine[Any, Any, T]) -> T:
    """Await something to its end, also when cancelled meanwhile; the cancellation comes afterwards."""
    task, cancelled = asyncio.create_task(doing), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # of no interest any more, and asyncio wants it looked at
        raise cancelled
    return task.result()


async def all_or_none(starts: Sequence[Coroutine[Any, Any, Sandbox]]) -> list[Sandbox]:
    """Start several sandboxes at once. When one does not start, or this is cancelled, none is left."""
    tasks = [asyncio.create_task(start) for start in starts]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        await settled(_undo(tasks))
        raise


async def _undo(tasks: Sequence[asyncio.Task[Sandbox]]) -> None:
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(each.close() for each in outcomes if isinstance(each, Sandbox)))
