"""One client of a server: its sandboxes, the socket that it speaks through, and the calls that it waits for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMsgType, web

from palaestra.errors import DataError, PalaestraError, SandboxError
from palaestra.sandboxes.desk import Desk
from palaestra.sandboxes.remote.admission import CLIENT_BYTES, OUTPUT_BYTES, Budget
from palaestra.sandboxes.remote.exchange import Exchange
from palaestra.sandboxes.remote.frames import (
    PIECE,
    SPEECH,
    Call,
    Cancel,
    Credit,
    End,
    Hello,
    Piece,
    encode,
    plain,
    to_server,
)
from palaestra.sandboxes.requests import Execute, Failed, Read, Request, Write, failure

MOST_CALLS = 1024
"""Calls of one client at once."""
SENDING_SECONDS = 120.0
"""How long a client may take to read one frame."""
CLOSING_SECONDS = 5.0
"""How long it may take to say good-bye."""
STOPPING_SECONDS = 30.0
"""How long what it asked for may take to stop once it is gone."""


class Tenant:
    """A client's sandboxes. They outlive its socket by a while, in which it may come back by its key."""

    def __init__(self, desk: Desk, grace: float, file_bytes: int) -> None:
        self.key = secrets.token_urlsafe(32)
        """By which it is known."""
        self.desk = desk
        self.grace = grace
        """Seconds for which its sandboxes wait."""
        self.visit: Visit | None = None
        """Its present socket."""
        self.file_bytes = file_bytes
        """Most bytes of a file that is read whole."""
        self.budget = Budget(CLIENT_BYTES)
        self.output = 0
        """Bytes of output that its commands may keep."""
        self._leaving: asyncio.TimerHandle | None = None

    async def serve(self, visit: Visit) -> None:
        """Serve it through a socket to the end of that; an older one ends now."""
        self.stay()
        if self.visit is not None:
            await self.visit.end(WSCloseCode.POLICY_VIOLATION, "the same client has connected anew")
            await self.visit.over.wait()
        self.visit = visit
        try:
            await visit.run()
        finally:
            if self.visit is visit:
                self.visit = None

    def stay(self) -> None:
        """It is back, or being ended: its time does not run any more."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def leave(self, then: Callable[[], object]) -> None:
        """It is gone: `then` is called unless it comes back in time."""
        self._leaving = asyncio.get_running_loop().call_later(self.grace, then)


class Visit:
    """One socket of a client, from the first frame to the last."""

    def __init__(self, tenant: Tenant, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        """Over a socket that is prepared; the transport is under it, to cut it where a good-bye would take too long."""
        self.over = asyncio.Event()
        """Set when nothing runs any more."""
        self.farewell = False
        """Whether the client said good-bye, rather than vanish."""
        self._tenant, self._socket, self._transport = tenant, socket, transport
        self._sending = asyncio.Lock()
        self._exchanges: dict[int, Exchange] = {}
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._stoppable: set[int] = set()
        """Calls that have no reply yet."""

    async def run(self) -> None:
        """Serve it. However it ends, what it has asked for is stopped."""
        try:
            await self._send(Hello(SPEECH, self._tenant.key, self._tenant.grace))
            while (message := await self._socket.receive()).type is WSMsgType.BINARY:
                self._take(message.data)
            if message.type is WSMsgType.TEXT:
                raise DataError("frames are binary here")
            self.farewell = message.type is WSMsgType.CLOSE and message.data == WSCloseCode.OK
        except DataError as error:
            await self.end(WSCloseCode.POLICY_VIOLATION, str(error))
        finally:
            for exchange in self._exchanges.values():
                exchange.end(SandboxError("the client is gone"))
            for task in self._calls.values():
                task.cancel()
            if self._calls:
                await asyncio.wait(self._calls.values(), timeout=STOPPING_SECONDS)
            self.over.set()

    async def end(self, code: int, reason: str) -> None:
        """Say good-bye, and cut the connection where that takes too long."""
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._socket.close(code=code, message=reason.encode()[:120])
        except (OSError, RuntimeError):
            self._cut()

    def _take(self, packed: bytes) -> None:
        """What the client says; that of calls which are over is dropped.

        Raises:
            DataError: it is nothing that a client may say.
        """
        frame = to_server(packed)
        if isinstance(frame, Call):
            self._begin(frame)
        elif isinstance(frame, Cancel):
            if frame.id in self._stoppable:
                self._calls[frame.id].cancel()
        elif (exchange := self._exchanges.get(frame.id)) is None:
            return
        elif isinstance(frame, Credit):
            exchange.allow(frame.size)
        else:
            exchange.add(frame)

    def _begin(self, call: Call) -> None:
        request = plain(call.request)
        if call.id in self._calls:
            raise DataError(f"call {call.id} runs already")
        if len(self._calls) >= MOST_CALLS:
            raise DataError(f"more than {MOST_CALLS} calls at once")
        exchange = Exchange(call.id, self._send)
        self._exchanges[call.id] = exchange
        self._stoppable.add(call.id)
        self._calls[call.id] = asyncio.create_task(self._answer(request, exchange, call.body))

    async def _answer(self, request: Request, exchange: Exchange, body: bool) -> None:
        """Do what a call says, and tell what came of it. Its memory is held until that is sent."""
        try:
            async with self._tenant.budget.room(self._weight(request)):
                packed = await self._reply(request, exchange, body)
                whole = len(packed) // PIECE * PIECE if len(packed) > PIECE else 0
                if whole:
                    await exchange.put("reply", packed[:whole])
                await self._send(End(exchange.id, packed[whole:]))
        except (asyncio.CancelledError, PalaestraError):
            return  # the client is gone, or does not read
        finally:
            self._exchanges.pop(exchange.id, None)
            self._calls.pop(exchange.id, None)
            self._stoppable.discard(exchange.id)

    def _weight(self, request: Request) -> int:
        """Bytes that a call may hold at once, beside its window and its output."""
        if isinstance(request, Read):
            return min(request.limit, self._tenant.file_bytes)
        return request.size if isinstance(request, Write | Execute) else 0

    async def _reply(self, request: Request, exchange: Exchange, body: bool) -> bytes:
        kept = _kept(request)
        if self._tenant.output + kept > CLIENT_BYTES:
            return encode(Failed("SandboxError", "the commands that run now may keep too much output; ask for less"))
        self._tenant.output += kept
        try:
            return await self._asked(request, exchange, body)
        finally:
            self._tenant.output -= kept

    async def _asked(self, request: Request, exchange: Exchange, body: bool) -> bytes:
        try:
            reply = await self._tenant.desk.ask(request, exchange.body() if body else None, exchange.put)
        except asyncio.CancelledError:
            if exchange.outcome is not None:
                raise
            reply = Failed("SandboxError", "it was cancelled")
        self._stoppable.discard(exchange.id)
        try:
            return encode(reply)
        except SandboxError as error:
            return encode(failure(error))

    async def _send(self, frame: Hello | Piece | Credit | End) -> None:
        """Send a frame, one at a time. Who does not read is cut off.

        Raises:
            SandboxError: the client is gone.
        """
        packed = encode(frame)
        try:
            async with self._sending, asyncio.timeout(SENDING_SECONDS):
                await self._socket.send_bytes(packed)
        except (OSError, RuntimeError) as error:  # gone, closed, or does not read: TimeoutError is an OSError
            self._cut()
            raise SandboxError("the client is gone") from error

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _kept(request: Request) -> int:
    """Bytes of output that a call may hold to its end."""
    return 2 * min(request.command.output or 0, OUTPUT_BYTES) if isinstance(request, Execute) else 0
