"""The client's end of one socket to a server of sandboxes: many calls at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace

from palaestra.errors import DataError, SandboxDaemonError, SandboxError, require
from palaestra.sandboxes.remote.exchange import Exchange
from palaestra.sandboxes.remote.frames import (
    KEY_PARAMETER,
    MESSAGE_BYTES,
    REPLY_BYTES,
    SPEECH,
    Call,
    Cancel,
    Credit,
    End,
    Hello,
    Piece,
    encode,
    odd,
    to_client,
    to_reply,
)
from palaestra.sandboxes.requests import Body, Close, Delete, Given, Keep, One, Open, Reply, Request, Sink
from palaestra.sandboxes.requests import End as EndSession

require("aiohttp", "remote")

import aiohttp  # noqa: E402

from palaestra.serving.farewell import farewell, unreachable  # noqa: E402

SERVER = "palaestra sandboxes serve"
"""What should run at the other end."""
HEARTBEAT_SECONDS = 120.0
"""How often the server is asked whether it is still there."""
OPENING_SECONDS = 60.0
CLOSING_SECONDS = 5.0
STOPPING_SECONDS = 10.0
"""How long one who was cancelled waits for the server to have stopped what was asked."""


class Connection:
    """One socket. A task of its own opens it, listens on it all the time and closes it."""

    def __init__(self, url: str, token: str | None, key: str | None = None) -> None:
        """Begin to connect: to new sandboxes, or to those that `key` names."""
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Hello] = loop.create_future()
        """Done when the server has said hello; raises why it does not."""
        self.lost = ""
        """Why there is no connection any more; empty while there is."""
        self._url, self._token, self._key = url, token, key
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._ids = itertools.count()
        self._exchanges: dict[int, Exchange] = {}
        self._drains: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._listening = loop.create_task(self._listen())

    async def ask(self, request: Request, body: Body | None = None, sink: Sink | None = None) -> Reply:
        """The server's reply.

        Raises:
            SandboxDaemonError: the connection is lost, or broke meanwhile.
            SandboxError: the request is too large, or what came is no reply.
        """
        call = Call(next(self._ids), request, body is not None)
        try:
            packed = encode(call)
        except UnicodeEncodeError:
            packed = encode(replace(call, request=odd(request)))
        if len(packed) > MESSAGE_BYTES:
            raise SandboxError(
                f"a command of {len(packed):,} bytes is over the limit of {MESSAGE_BYTES:,}: "
                f"give what is long on standard input or in a file"
            )
        exchange = self._exchanges[call.id] = Exchange(call.id, self._send)
        sending: asyncio.Task[None] | None = None
        try:
            await self._send(packed)
            if body is not None:
                sending = asyncio.create_task(_pump(exchange, body))
            return await self._reply(exchange, sink)
        except BaseException as error:
            if exchange.outcome is None and not self.lost:
                await self._abandon(exchange, request, wait=isinstance(error, asyncio.CancelledError))
            raise
        finally:
            if sending is not None:
                await _stop(sending)
            if exchange.outcome is not None or self.lost:
                self._exchanges.pop(call.id, None)

    async def close(self) -> None:
        """Say good-bye."""
        self._listening.cancel()
        await asyncio.wait({self._listening}, timeout=CLOSING_SECONDS)

    async def _reply(self, exchange: Exchange, sink: Sink | None) -> Reply:
        held = bytearray()
        while (piece := await exchange.next()) is not None:
            if piece.kind == "reply":
                held += piece.data
            elif piece.kind == "body" or sink is None:
                raise SandboxError(f"{self._url} sent what nobody asked; is it {SERVER} of this version?")
            elif (wait := sink(piece.kind, piece.data)) is not None:
                await wait
            if len(held) > REPLY_BYTES:
                raise SandboxError(f"{self._url} answered more than {REPLY_BYTES:,} bytes")
        assert isinstance(exchange.outcome, bytes)
        try:
            return to_reply(bytes(held + exchange.outcome))
        except DataError as error:
            raise SandboxError(f"{self._url}: {error}; is it {SERVER} of this version?") from error

    async def _abandon(self, exchange: Exchange, request: Request, wait: bool) -> None:
        """Have a call stopped, and what it made closed. Who was cancelled sees it stopped, or waits for a while."""
        drain = asyncio.create_task(self._drain(exchange, request))
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)
        if wait:
            await asyncio.wait({drain}, timeout=STOPPING_SECONDS)

    async def _drain(self, exchange: Exchange, request: Request) -> None:
        exchange.interrupt(None)
        try:
            await self._send(Cancel(exchange.id))
            reply = await self._reply(exchange, lambda kind, data: None)
            for one in reply.ones if isinstance(reply, Given) else ():
                await self.ask(_undoing(request, one))
        except SandboxError:
            return  # lost, and with it what was made
        finally:
            self._exchanges.pop(exchange.id, None)

    async def _send(self, frame: Any) -> None:
        """Send a frame, one at a time, as fast as the socket takes them."""
        packed = frame if isinstance(frame, bytes) else encode(frame)
        try:
            async with self._sending:
                if self._socket is None or self.lost:
                    raise SandboxDaemonError(self.lost or f"{self._url} is not connected")
                await self._socket.send_bytes(packed)
        except (OSError, aiohttp.ClientError):
            await asyncio.wait({self._listening}, timeout=CLOSING_SECONDS)  # it knows why
            raise SandboxDaemonError(self.lost or f"{self._url}: the connection broke") from None

    async def _listen(self) -> None:
        """The socket's whole life."""
        lost: SandboxError = SandboxDaemonError(f"{self._url}: the connection was closed by this side")
        try:
            async with self._open() as socket:
                self._socket = socket
                while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    self._take(message.data)
                lost = SandboxDaemonError(f"{self._url}: {farewell(message, SERVER)}")
        except DataError as error:
            lost = SandboxDaemonError(f"{self._url}: {error}; is it {SERVER} of this version?")
        except (OSError, aiohttp.ClientError, ValueError) as error:
            lost = SandboxDaemonError(_explained(self._url, error))
        finally:
            self._end(lost)

    def _take(self, packed: bytes) -> None:
        """What the server says. That of calls which are over is dropped."""
        frame = to_client(packed)
        if isinstance(frame, Hello):
            if frame.speech != SPEECH:
                raise DataError(f"it speaks version {frame.speech}, this is {SPEECH}")
            if not self.opened.done():
                self.opened.set_result(frame)
        elif (exchange := self._exchanges.get(frame.id)) is None:
            return
        elif isinstance(frame, Piece):
            exchange.add(frame)
        elif isinstance(frame, Credit):
            exchange.allow(frame.size)
        else:
            assert isinstance(frame, End)
            exchange.end(frame.data)

    def _end(self, error: SandboxError) -> None:
        self.lost = str(error)
        for exchange in self._exchanges.values():
            exchange.end(error)
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # whoever has stopped waiting need not be told

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        query = f"?{KEY_PARAMETER}={quote(self._key)}" if self._key else ""
        timeout = aiohttp.ClientTimeout(total=None, connect=OPENING_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.ws_connect(
                f"{self._url}/connect{query}",
                headers={"Authorization": f"Bearer {self._token}"} if self._token else None,
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=MESSAGE_BYTES + 1024,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING_SECONDS),
            ) as socket,
        ):
            yield socket


async def _pump(exchange: Exchange, body: Body) -> None:
    """Send a body to its end. Where it cannot be read, that is what comes of the call."""
    try:
        async for data in body:
            await exchange.put("body", data)
        await exchange.put("body", b"", last=True)
    except Exception as error:
        exchange.interrupt(error)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _undoing(request: Request, one: One) -> Request:
    """What closes a thing that a request made for nobody."""
    if isinstance(request, Keep):
        return Delete(one.handle)
    return EndSession(one.handle) if isinstance(request, Open) else Close(one.handle)


def _explained(url: str, error: Exception) -> str:
    """Why there is no connection, and what to do about it."""
    if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == 503:
        return f"{url} is full: close some clients, or raise {SERVER} --max-clients"
    if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == 410:
        return f"{url} no longer has these sandboxes: the connection was lost for too long, or the server was restarted"
    return unreachable(url, error, SERVER)
