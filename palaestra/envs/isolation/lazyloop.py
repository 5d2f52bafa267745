"""An event loop that opens no descriptor until something really waits in it.

A loop costs three descriptors, and most environments that run in a thread never wait: thousands of them then need none.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Mapping
from typing import Any

_Ready = list[tuple[selectors.SelectorKey, int]]


class LazyLoop(asyncio.SelectorEventLoop):
    """A `SelectorEventLoop` whose selector and wake-up socket are made when it first waits, or watches a file."""

    _csock: socket.socket | None  # of asyncio's own; `None` says to it that nobody needs waking

    def __init__(self) -> None:
        super().__init__(_LazySelector(self._open_pipe))

    def _make_self_pipe(self) -> None:  # asyncio calls it when the loop is made: too early
        self._ssock = self._csock = None
        self._internal_fds = 0

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            super()._close_self_pipe()  # type: ignore[misc]  # private to asyncio, the same in all its versions

    def _open_pipe(self) -> None:
        super()._make_self_pipe()  # type: ignore[misc]


class _LazySelector(selectors.BaseSelector):
    """Nothing is ready until somebody waits or registers; then it is the platform's own selector."""

    def __init__(self, on_open: Callable[[], None]) -> None:
        self._on_open: Callable[[], None] | None = on_open
        self._real: selectors.BaseSelector | None = None

    def select(self, timeout: float | None = None) -> _Ready:
        """What is ready; the first call that would have to wait comes back at once with nothing.

        Another thread may have called the loop before there was anything to wake it by: it has to look again.
        """
        if self._real is not None:
            return self._real.select(timeout)
        if timeout is None or timeout > 0:
            self._open()
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file."""
        return self._open().register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching it."""
        return self._open().unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What is watched."""
        return self._open().get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """How a file is watched."""
        if self._real is None:  # asyncio asks before it registers the first
            raise KeyError(f"{fileobj!r} is not registered")
        return self._real.get_key(fileobj)

    def close(self) -> None:
        """Close the platform's selector, if there is one."""
        self._on_open = None
        if self._real is not None:
            self._real.close()

    def _open(self) -> selectors.BaseSelector:
        if self._real is None:
            self._real = selectors.DefaultSelector()
            if self._on_open is not None:
                self._on_open()  # registers the wake-up socket here
        return self._real
