"""The near side of the link, against a far side that lies."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.errors import SandboxError
from palaestra.sandboxes.link import Frames, Link, frame
from palaestra.sandboxes.runner.frames import FRAME, WINDOW


class Lies:
    """A wire on which comes whatever a test says: something at first, and something after each frame that is sent."""

    def __init__(self, *said: bytes) -> None:
        self._said = list(said)
        self._heard = asyncio.Event()
        self._heard.set()

    async def read(self) -> bytes:
        await self._heard.wait()
        if not self._said:
            await asyncio.Future()
        self._heard.clear()
        return self._said.pop(0)

    async def write(self, data: bytes) -> None:
        self._heard.set()

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "said",
    [
        FRAME.pack(1 << 20, 0),
        FRAME.pack(2, 1 << 30),
        FRAME.pack(2, 0) + b"[]",
        FRAME.pack(2, 0) + b"{}",
        FRAME.pack(3, 0) + b"\xff\xff\xff",
        FRAME.pack(50_000, 0) + b"[" * 50_000,
        frame({"id": 1, "kind": "ack", "bytes": "many"}),
        frame({"id": 1, "kind": "ack"}),
        frame({"id": 1, "kind": "data"}, bytes(1 << 18)) * 20,
    ],
)
def test_a_runner_that_lies_has_lost_its_link(said: bytes) -> None:
    async def test() -> None:
        link = Link(Lies(frame({"id": 0, "kind": "hello"}), said))
        await link.hello()
        async with asyncio.timeout(10):
            with pytest.raises(SandboxError, match="lost"):
                await _everything(link)
        await link.close()
        with pytest.raises(SandboxError):
            await link.ask({"op": "ping"})

    asyncio.run(test())


async def _everything(link: Link) -> None:
    """All that is answered to one request."""
    exchange = link.exchange()
    await link.send({"id": exchange.id, "op": "ping"})
    await asyncio.sleep(0.1)
    while True:
        await exchange.receive()


def test_what_belongs_to_no_request_is_dropped() -> None:
    async def test() -> None:
        much = frame({"id": 5, "kind": "data"}, bytes(1 << 18)) * 20
        link = Link(Lies(frame({"id": 0, "kind": "hello"}), much, frame({"id": 2, "kind": "done"})))
        await link.hello()
        first = asyncio.create_task(link.ask({"op": "ping"}))
        await asyncio.sleep(0.1)
        assert (await link.ask({"op": "ping"}))["kind"] == "done"
        first.cancel()
        await link.close()

    asyncio.run(test())


HEADERS = st.fixed_dictionaries({"id": st.integers(-5, 5), "kind": st.text(max_size=5)}, optional={"x": st.text()})


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=100)), max_size=5), st.integers(1, 50))
def test_frames_are_found_however_they_are_cut(sent: list[tuple[dict[str, object], bytes]], size: int) -> None:
    whole, frames = b"".join(frame(*each) for each in sent), Frames()
    found = [each for at in range(0, len(whole), size) for each in frames.feed(whole[at : at + size])]
    assert found == [(json.loads(json.dumps(header)), payload) for header, payload in sent]


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_nonsense_is_an_error_of_one_kind(parts: list[bytes]) -> None:
    frames = Frames()
    try:
        for part in parts:
            frames.feed(part)
    except ValueError:
        pass


def test_data_waits_for_the_window() -> None:
    async def test() -> None:
        link = Link(Lies(frame({"id": 0, "kind": "hello"})))
        await link.hello()
        exchange, sent = link.exchange(), 0
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while sent < 2 * WINDOW:
                    await exchange.send({}, bytes(1 << 16))
                    sent += 1 << 16
        assert 0 < sent <= WINDOW
        exchange.take({"kind": "ack", "bytes": 1 << 40}, b"")
        await exchange.send({}, b"x")
        exchange.take({"kind": "error", "text": "full"}, b"")
        with pytest.raises(SandboxError, match="full"):
            await exchange.send({}, b"x")
        await link.close()

    asyncio.run(test())
