"""One call, as either side of the socket sees it: pieces that come, pieces that go, and the window for both."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from palaestra.errors import DataError
from palaestra.sandboxes.remote.frames import PIECE, WINDOW, Credit, Kind, Piece

OVERHEAD = 256
"""Bytes that a piece takes beside its data."""

Send = Callable[[Any], Awaitable[None]]
"""Sends a frame; returns when the socket has room for another."""


class Exchange:
    """Never holds more than a window of what comes, and never sends more than a window ahead."""

    def __init__(self, id: int, send: Send) -> None:
        self.id = id
        self.outcome: BaseException | bytes | None = None
        """What the other side ended it with: the last bytes of the reply, or why there will be none."""
        self._send = send
        self._come: deque[Piece] = deque()
        self._held = self._owed = self._taken = 0
        """What came and is not done with; what is, unknown to the other side; what was taken last."""
        self._allowed = WINDOW
        self._interruption: BaseException | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    # What comes: called by whoever reads the socket, and never waits.

    def add(self, piece: Piece) -> None:
        """Take a piece that came.

        Raises:
            DataError: the other side does not keep to the window.
        """
        self._held += _cost(piece.data)
        if self._held + self._owed > WINDOW:
            raise DataError("more came than was asked for")
        self._come.append(piece)
        self._news.set()

    def allow(self, size: int) -> None:
        """Take a credit that came.

        Raises:
            DataError: it is for more than was sent.
        """
        self._allowed += size
        if self._allowed > WINDOW:
            raise DataError("credit came for what was never sent")
        self._room.set()

    def end(self, outcome: BaseException | bytes) -> None:
        """Let it end, behind all that came before."""
        self.outcome = outcome
        self._news.set()
        self._room.set()

    # What is done with it: each by one task.

    def interrupt(self, error: BaseException | None) -> None:
        """Have `next` raise this, from now on; with `None` no longer."""
        self._interruption = error
        self._news.set()

    async def next(self) -> Piece | None:
        """The next piece, `None` at the end of the call. Whoever asks is done with the one before.

        Raises:
            BaseException: what the call was ended or interrupted with.
        """
        await self._done_with_last()
        while self._interruption is None:
            if self._come:
                piece = self._come.popleft()
                self._taken = _cost(piece.data)
                return piece
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            if self.outcome is not None:
                return None
            self._news.clear()
            await self._news.wait()
        raise self._interruption

    async def body(self) -> AsyncIterator[bytes]:
        """The bytes of a body, to its end.

        Raises:
            DataError: something else came.
        """
        while (piece := await self.next()) is not None and piece.kind == "body":
            yield piece.data
            if piece.last:
                return
        raise DataError("a body was cut off")

    async def put(self, kind: Kind, data: bytes, last: bool = False) -> None:
        """Send bytes, as the window allows.

        Raises:
            BaseException: what the call was ended with.
        """
        for start in range(0, max(1, len(data)), PIECE):
            piece = data[start : start + PIECE]
            while self._allowed < _cost(piece) and self.outcome is None:
                self._room.clear()
                await self._room.wait()
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            if self.outcome is not None:
                return  # the other side wants no more of it
            self._allowed -= _cost(piece)
            await self._send(Piece(self.id, kind, piece, last and start + PIECE >= len(data)))

    async def _done_with_last(self) -> None:
        size, self._taken = self._taken, 0
        self._held -= size
        self._owed += size
        if self._owed * 4 >= WINDOW and self.outcome is None:
            size, self._owed = self._owed, 0
            await self._send(Credit(self.id, size))


def _cost(data: bytes) -> int:
    """What a piece takes of the window: many small ones take memory too."""
    return len(data) + OVERHEAD
