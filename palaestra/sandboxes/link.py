"""The near side of what `runner` speaks: requests and answers, many at once, over any two streams of bytes.

What comes is untrusted: lengths are bounded, what belongs to no request is dropped, and a runner that sends more than
it was allowed to has lost its link.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from palaestra.errors import SandboxError, SandboxPathError
from palaestra.sandboxes.runner.frames import CHUNK, FRAME, LONGEST, OVERHEAD, WINDOW

Header = dict[str, Any]

_LONGEST_HEADER = 1 << 17
_LONGEST_PAYLOAD = 2 * CHUNK
_READ = 1 << 20
_STOPPED = 5.0
"""Seconds for what is cancelled to be stopped, which takes a few milliseconds."""


class Wire(Protocol):
    """Bytes to and from a runner."""

    async def read(self) -> bytes:
        """What has come; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send all of it, and wait where the other side is slow."""

    async def close(self) -> None:
        """May be called more than once."""


class StreamWire:
    """A wire of asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        """See `Wire`."""
        return await self._reader.read(_READ)

    async def write(self, data: bytes) -> None:
        """See `Wire`."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """See `Wire`."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


def frame(header: Header, payload: bytes = b"") -> bytes:
    """One frame as bytes.

    Raises:
        SandboxPathError: it is too long.
    """
    text = json.dumps(header).encode()
    if max(len(text), len(payload)) > LONGEST:
        raise SandboxPathError(f"more than {LONGEST} bytes cannot be sent to a sandbox at once")
    return FRAME.pack(len(text), len(payload)) + text + payload


class Frames:
    """Cuts what comes into frames.

    Raises:
        ValueError: from `feed`: these are none.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Header, bytes]]:
        """Frames that are whole by now."""
        self._buffer += data
        found, at, view = list[tuple[Header, bytes]](), 0, memoryview(self._buffer)
        try:
            while len(view) - at >= FRAME.size:
                header, payload = FRAME.unpack_from(view, at)
                if header > _LONGEST_HEADER or payload > _LONGEST_PAYLOAD:
                    raise ValueError("a frame that is too long")
                begin = at + FRAME.size
                if len(view) - begin < header + payload:
                    break
                at = begin + header + payload
                found.append((_parsed(bytes(view[begin : begin + header])), bytes(view[begin + header : at])))
        finally:
            view.release()
        del self._buffer[:at]
        return found


def _parsed(text: bytes) -> Header:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("a header that is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("id"), int) or not isinstance(header.get("kind"), str):
        raise ValueError("a header without id and kind")
    return header


class Exchange:
    """One request: what it is sent, and what it is answered."""

    def __init__(self, link: Link, id: int, most: int) -> None:
        self.id = id
        self._link, self._most = link, most
        self._came: deque[tuple[Header, bytes]] = deque()
        self._held = 0
        self._credit = WINDOW
        self._refused = False
        self._changed = asyncio.Event()

    async def receive(self) -> tuple[Header, bytes]:
        """The next frame of the answer.

        Raises:
            SandboxPathError: the runner refuses.
            SandboxError: the link is gone.
        """
        header, payload = await self._frame()
        if header["kind"] == "error":
            raise SandboxPathError(str(header.get("text"))[:2000])
        return header, payload

    async def next(self) -> Header:
        """The header of the next frame, whatever it says.

        Raises:
            SandboxError: the link is gone.
        """
        return (await self._frame())[0]

    async def _frame(self) -> tuple[Header, bytes]:
        while not self._came:
            self._link.check()
            self._changed.clear()
            await self._changed.wait()
        header, payload = self._came.popleft()
        self._held -= len(payload) + OVERHEAD
        return header, payload

    async def acknowledge(self, payload: bytes) -> None:
        """Say that a frame of data is consumed."""
        await self._link.send({"id": self.id, "op": "ack", "bytes": len(payload) + OVERHEAD})

    async def send(self, header: Header, payload: bytes = b"") -> None:
        """Send data when the window is open.

        Raises:
            SandboxPathError: the runner refuses any more.
            SandboxError: the link is gone.
        """
        while self._credit <= 0 and not self._refused:
            self._link.check()
            self._changed.clear()
            await self._changed.wait()
        if self._refused:
            while True:
                await self.receive()
        self._credit -= len(payload) + OVERHEAD
        await self._link.send({**header, "id": self.id, "op": "data"}, payload)

    async def end(self) -> None:
        """There is no more data."""
        await self._link.send({"id": self.id, "op": "end"})

    def take(self, header: Header, payload: bytes) -> None:
        """A frame has come.

        Raises:
            ValueError: it is more than was allowed.
        """
        if header["kind"] == "ack":
            self._credit = min(WINDOW, self._credit + int(header["bytes"]))
        else:
            self._held += len(payload) + OVERHEAD
            if self._held > self._most:
                raise ValueError("more than was asked for")
            self._came.append((header, payload))
            self._refused = self._refused or header["kind"] == "error"
        self._changed.set()

    def wake(self) -> None:
        """The link is gone."""
        self._changed.set()


class Link:
    """Requests to one runner."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._open: dict[int, Exchange] = {}
        self._last = 0
        self._lost = ""
        self.on_open: Callable[[Header], None] | None = None
        """Told when something in the sandbox wants a connection."""
        self._hello = self.exchange()
        self._writing = asyncio.Lock()
        self._reading = asyncio.create_task(self._read())

    async def begin(self, program: bytes) -> None:
        """Send what is to speak to us. Where nobody takes it, that is told by what is read, and better."""
        with suppress(OSError):
            async with self._writing:
                await self._wire.write(program)

    async def hello(self) -> Header:
        """What the runner says of itself when it has started."""
        header, _ = await self._hello.receive()
        self.forget(self._hello)
        return header

    def check(self) -> None:
        """Whether there is still a runner.

        Raises:
            SandboxError: there is not.
        """
        if self._lost:
            raise SandboxError(self._lost)

    @property
    def alive(self) -> bool:
        """Whether there is still a runner, as far as is known."""
        return not self._lost

    def exchange(self, most: int = 0) -> Exchange:
        """A place for a request and its answers, of which `most` bytes may come beside the window."""
        made = Exchange(self, self._last, most + 2 * WINDOW)
        self._open[self._last] = made
        self._last += 1
        return made

    def adopt(self, id: int) -> Exchange:
        """An exchange that the runner has begun.

        Raises:
            ValueError: it did not choose its own number for it.
        """
        if id >= 0 or id in self._open:
            raise ValueError("a connection with a number that is not its own")
        made = self._open[id] = Exchange(self, id, 2 * WINDOW)
        return made

    def forget(self, exchange: Exchange) -> None:
        """No more answers are wanted."""
        self._open.pop(exchange.id, None)

    async def cancel(self, exchange: Exchange) -> None:
        """Stop what a request began, and return when that is stopped, as far as the runner says so in time."""
        try:
            with suppress(SandboxError, TimeoutError):
                async with asyncio.timeout(_STOPPED):
                    await self.send({"id": exchange.id, "op": "cancel"})
                    while (await exchange.next())["kind"] != "cancelled":
                        pass
        finally:
            self.forget(exchange)

    async def ask(self, header: Header, payload: bytes = b"") -> Header:
        """A request with one answer.

        Raises:
            SandboxPathError: the runner refuses.
            SandboxError: the link is gone.
        """
        exchange = self.exchange()
        try:
            await self.send({**header, "id": exchange.id}, payload)
            return (await exchange.receive())[0]
        finally:
            self.forget(exchange)

    async def send(self, header: Header, payload: bytes = b"") -> None:
        """One frame, whole, even when whoever sends it is cancelled.

        Raises:
            SandboxError: the link is gone.
        """
        self.check()
        try:
            async with self._writing:
                await self._wire.write(frame(header, payload))
        except (OSError, RuntimeError) as error:
            self._lose(f"the sandbox is lost: {error}")
            self.check()

    async def _read(self) -> None:
        frames = Frames()
        try:
            while data := await self._wire.read():
                for header, payload in frames.feed(data):
                    exchange = self._open.get(header["id"])
                    if exchange is not None:
                        exchange.take(header, payload)
                    elif header["kind"] == "open" and self.on_open is not None:
                        self.on_open(header)
            self._lose("the sandbox is lost: it ended")
        except (ValueError, TypeError, KeyError) as error:
            self._lose(f"the sandbox is lost: its runner sent {error}")
        except (OSError, SandboxError) as error:
            self._lose(f"the sandbox is lost: {error}")

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        for each in self._open.values():
            each.wake()

    async def close(self, why: str = "the sandbox is closed") -> None:
        """Let the runner end. May be called more than once."""
        self._lose(why)
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        await self._wire.close()
