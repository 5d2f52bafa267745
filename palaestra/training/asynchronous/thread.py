"""Work that is computed in a thread, while the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def in_thread(executor: Executor, work: Callable[[], T]) -> T:
    """The result of `work`, which is never left half done: a cancellation waits for it, and takes effect at the next
    await of whoever called, unless `work` failed."""
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None and future.exception() is None:  # an error is not hidden by it
        task.cancel()
    return future.result()
