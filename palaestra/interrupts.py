"""Ctrl-C that waits for the end of an import.

A C extension that is interrupted in the middle of its import may abort the process or swallow the exception: torch 2.13
did both, the one as `terminate called after throwing an instance of 'pybind11::error_already_set'`.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_SECONDS = 10.0
"""For how long Ctrl-C waits; a module that works, or hangs, while it is imported is then broken into."""
_PAUSE = 0.02


@contextmanager
def interrupting_after_imports() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` as ever, but not in the middle of an import.

    Outside the main thread, or where Python's own handler is not in place (Ctrl-C is ignored), nothing changes.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _Interrupter())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def cancelling() -> Iterator[None]:
    """Put Python's own handler back, the only one that `asyncio.Runner` replaces by one that cancels its task."""
    before = signal.getsignal(signal.SIGINT)
    if not isinstance(before, _Interrupter):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Interrupter:
    """The handler."""

    def __init__(self) -> None:
        self._main = _thread.get_ident()
        self._since: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if _is_importing(frame) and now - self._since < PATIENCE_SECONDS:
            # Not by `threading`: what is interrupted may hold its locks.
            _thread.start_new_thread(self._send_again, ())
            return
        self._since = None
        raise KeyboardInterrupt

    def _send_again(self) -> None:
        time.sleep(_PAUSE)
        signal.pthread_kill(self._main, signal.SIGINT)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
