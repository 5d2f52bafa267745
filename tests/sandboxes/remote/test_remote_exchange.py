"""The window of a call: for any sizes, and any speed of the reader, no more is on its way than may be."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.errors import DataError, SandboxError
from palaestra.sandboxes.remote.exchange import OVERHEAD, Exchange
from palaestra.sandboxes.remote.frames import PIECE, WINDOW, Credit, Piece


class Pair:
    """Two ends of a call, without a socket between."""

    def __init__(self) -> None:
        self.near, self.far = Exchange(1, self.to_far), Exchange(1, self.to_near)
        self.way = self.most = 0

    async def to_far(self, frame: Any) -> None:
        assert isinstance(frame, Piece)
        assert len(frame.data) <= PIECE
        self.way += len(frame.data) + OVERHEAD
        self.most = max(self.most, self.way)
        self.far.add(frame)
        await asyncio.sleep(0)

    async def to_near(self, frame: Any) -> None:
        assert isinstance(frame, Credit)
        self.way -= frame.size
        self.near.allow(frame.size)


@given(st.lists(st.integers(0, 700_000), max_size=12), st.sampled_from([0, 1, 3]))
@settings(max_examples=40, deadline=None)
def test_all_arrives_in_order_within_the_window(sizes: list[int], pause: int) -> None:
    async def go() -> None:
        pair, said = Pair(), [bytes([n]) * size for n, size in enumerate(sizes)]

        async def send() -> None:
            for data in said:
                await pair.near.put("body", data)
            await pair.near.put("body", b"", last=True)

        sending, came = asyncio.create_task(send()), bytearray()
        async for piece in pair.far.body():
            came += piece
            for _ in range(pause):
                await asyncio.sleep(0)
        await sending
        assert bytes(came) == b"".join(said)
        assert pair.most <= WINDOW

    asyncio.run(go())


def test_a_reader_that_stops_stops_the_writer() -> None:
    async def go() -> None:
        pair = Pair()
        sending = asyncio.create_task(pair.near.put("stdout", bytes(10 * WINDOW)))
        for _ in range(200):
            await asyncio.sleep(0)
        assert not sending.done()
        assert pair.way <= WINDOW
        pair.near.end(SandboxError("gone"))
        with pytest.raises(SandboxError, match="gone"):
            await sending

    asyncio.run(go())


def test_the_end_comes_behind_what_came_before() -> None:
    async def go() -> None:
        async def nowhere(frame: Any) -> None:
            await asyncio.sleep(0)

        call = Exchange(1, nowhere)
        call.add(Piece(1, "stdout", b"x"))
        call.end(SandboxError("gone"))
        piece = await call.next()
        assert piece is not None
        assert piece.data == b"x"
        with pytest.raises(SandboxError, match="gone"):
            await call.next()
        with pytest.raises(DataError):
            call.allow(1)
        cut = Exchange(2, nowhere)
        cut.end(b"")
        with pytest.raises(DataError, match="cut off"):
            async for _ in cut.body():
                pass

    asyncio.run(go())
