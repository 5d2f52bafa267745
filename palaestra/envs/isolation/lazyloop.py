"""An event loop that opens no descriptor until something really waits in it.

A loop costs three descriptors, and most environments never wait: thousands of them in threads then need none, and a
process that forks itself has none to give up, nor its copy any to make.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVarTuple

_Ts = TypeVarTuple("_Ts")
_Ready = list[tuple[selectors.SelectorKey, int]]


class LazyLoop(asyncio.SelectorEventLoop):
    """A `SelectorEventLoop` whose selector and wake-up socket are made when it first waits, or watches a file."""

    _csock: socket.socket | None  # of asyncio's own; `None` says to it that nobody needs waking
    _signal_handlers: dict[int, object]  # of asyncio's own too

    def __init__(self) -> None:
        self._lazy = _LazySelector(self._open_pipe)
        super().__init__(self._lazy)

    def _make_self_pipe(self) -> None:  # asyncio calls it when the loop is made: too early
        self._ssock = self._csock = None
        self._internal_fds = 0

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            super()._close_self_pipe()  # type: ignore[misc]  # private to asyncio, the same in all its versions

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """See `asyncio`, whose handlers write to the wake-up socket."""
        self._lazy.open()
        super().add_signal_handler(sig, callback, *args)

    def rest(self) -> bool:
        """Close the selector and the wake-up socket until they are needed again; `False` where something is watched.

        Not while another thread may call this loop.
        """
        if self._csock is not None:
            if self._signal_handlers or len(self._lazy.get_map()) > 1:
                return False
            super()._close_self_pipe()  # type: ignore[misc]  # as above
        return self._lazy.rest()

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
            self.open()
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file."""
        return self.open().register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching it."""
        return self.open().unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What is watched."""
        return self.open().get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """How a file is watched."""
        if self._real is None:  # asyncio asks before it registers the first
            raise KeyError(f"{fileobj!r} is not registered")
        return self._real.get_key(fileobj)

    def rest(self) -> bool:
        """Close the platform's selector until it is needed again; `False` where it watches something."""
        if self._real is not None:
            if self._real.get_map():
                return False
            self._real.close()
            self._real = None
        return True

    def close(self) -> None:
        """Close the platform's selector, if there is one."""
        self._on_open = None
        if self._real is not None:
            self._real.close()

    def open(self) -> selectors.BaseSelector:
        """The platform's selector, which is made now if there is none."""
        if self._real is None:
            self._real = selectors.DefaultSelector()
            if self._on_open is not None:
                self._on_open()  # registers the wake-up socket here
        return self._real
