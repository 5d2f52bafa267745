"""How servers end: at the first Ctrl-C or SIGTERM in order, at the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from palaestra.cli.main import INTERRUPTED, TERMINATED


@contextmanager
def stopping(stopped: asyncio.Event) -> Iterator[None]:
    """Set `stopped` at the first Ctrl-C or SIGTERM; the next one ends the process, whatever the event loop does."""
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: FrameType | None) -> None:
        if not stopped.is_set() and not told:
            told.append(number)
            loop.call_soon_threadsafe(stopped.set)
            return
        # An environment that blocks the loop may catch whatever is raised here. Workers end with this process.
        os.write(2, b"palaestra: interrupted\n")
        os._exit(TERMINATED if number == signal.SIGTERM else INTERRUPTED)

    told: list[int] = []
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
