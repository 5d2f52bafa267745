"""One client of a server and its one environment, from the opening of the socket to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from palaestra.envs.core import Env
from palaestra.envs.isolation.host import CAPABILITIES, Host, failure
from palaestra.envs.isolation.messages import Fork, Forked, Open, Reply, Request, decode_request, encode_reply
from palaestra.envs.isolation.offers import Offers, close_quietly, is_own
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.isolation.protocol import Ask, Call, Made, ResetCall
from palaestra.errors import DeadlineError, EnvError

T = TypeVar("T")

OPENING_SECONDS = 30.0
"""How long a client may take to open an environment, once it is connected."""
SENDING_SECONDS = 60.0
"""How long a client may take to read an answer."""
ORPHAN_SECONDS = 5.0
"""How long forks wait for their clients once the session that they come from is over."""
CLOSING_SECONDS = 5.0
"""How long a client may take to say good-bye."""


class Session:
    """Answers one request at a time. Whatever ends it, be it a good-bye, a lost connection or silence, closes all."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        make: Callable[[Open], Env[Any, Any]],
        offers: Offers,
        idle_seconds: float,
    ) -> None:
        """Over a socket that is prepared.

        Args:
            socket: to the client.
            transport: under it, to cut the connection where a good-bye would take too long.
            make: makes a served environment, or raises `PalaestraError`.
            offers: where forks wait for their clients.
            idle_seconds: how long a client may say nothing.
        """
        self.done = asyncio.Event()
        """Set when everything is closed."""
        self._socket, self._transport, self._make, self._offers = socket, transport, make, offers
        self._idle_seconds = idle_seconds
        self._host = Host()
        self._limits, self._inline = Deadlines(), True
        self._offered: list[str] = []
        """Keys of all forks."""
        self._busy = False
        self._active = asyncio.get_running_loop().time()

    def hold(self, env: Env[Any, Any]) -> None:
        """Go on with this environment."""
        self._host.env = env
        placement = env.spec.placement if env.spec is not None else Placement()
        self._limits, self._inline = placement.deadlines, placement.kind == "inline"

    async def run(self) -> None:
        """Serve the client to the end."""
        work: asyncio.Task[None] | None = None
        try:
            while (message := await self._next()) is not None:
                if self._busy:
                    await self._end(WSCloseCode.POLICY_VIOLATION, "one request at a time: await its answer first")
                    break
                self._busy = True
                work = asyncio.create_task(self._respond(message.data, work))
        finally:
            if work is not None:
                work.cancel()
                await asyncio.wait({work}, timeout=self._limits.close)
            self._offers.hurry(self._offered, ORPHAN_SECONDS)
            await self._close_env()
            self.done.set()

    async def stop(self) -> None:
        """End it from outside, because the server stops."""
        await self._end(WSCloseCode.GOING_AWAY, "the server was stopped")
        await self.done.wait()

    async def _next(self) -> WSMessage | None:
        """The next message; `None` when the client is gone, or has been sent away for its silence."""
        clock = asyncio.get_running_loop().time
        while True:
            patience = OPENING_SECONDS if self._host.env is None else self._idle_seconds
            patience = min(patience, self._idle_seconds)
            left = patience if self._busy else self._active + patience - clock()
            if left <= 0:
                await self._end(WSCloseCode.POLICY_VIOLATION, f"nothing was asked for {patience:g} s")
                return None
            try:
                message = await self._socket.receive(timeout=left)
            except TimeoutError:
                continue
            return message if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) else None

    async def _respond(self, frame: bytes | str, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait({before})  # it has been answered, but perhaps not quite finished
        as_json = isinstance(frame, str)
        reply = await self._reply(frame)
        try:
            packed = encode_reply(reply, as_json=as_json)
        except EnvError as error:
            packed = encode_reply(failure(error), as_json=as_json)
        self._busy, self._active = False, asyncio.get_running_loop().time()
        await self._send(packed)

    async def _send(self, packed: bytes | str) -> None:
        try:
            async with asyncio.timeout(SENDING_SECONDS):
                if isinstance(packed, str):
                    await self._socket.send_str(packed)
                else:
                    await self._socket.send_bytes(packed)
        except (OSError, RuntimeError):  # gone, closed, or does not read: TimeoutError is an OSError
            self._cut()

    async def _reply(self, frame: bytes | str) -> Reply:
        """What comes of a request; nothing that an environment does may end the server."""
        try:
            return await self._do(decode_request(frame))
        except BaseException as error:
            if is_own(error):
                raise
            return failure(error)

    async def _do(self, request: Request) -> Reply:
        if isinstance(request, Open):
            return await self._open(request)
        if isinstance(request, Fork):
            return await self._fork(request.n)
        return await self._call(request)

    async def _open(self, request: Open) -> Made:
        await self._close_env()
        env = self._make(request)
        self.hold(env)
        try:
            await env.start()
        except BaseException:
            await self._close_env()
            raise
        return Made(tuple(name for name in CAPABILITIES if hasattr(env, name)))

    async def _fork(self, n: int) -> Forked:
        env = self._host.env
        if env is None:
            raise EnvError("the environment is not made yet, or closed")
        places = self._offers.places
        places.take(n)
        try:
            siblings = await self._within("fork", env.fork(n))
        except BaseException:
            for _ in range(n):
                places.give_back()
            raise
        keys = tuple(self._offers.add(sibling) for sibling in siblings)
        self._offered += keys
        return Forked(keys)

    async def _call(self, call: Call) -> Reply:
        if not self._inline:
            return await self._host.answer(call)  # what is placed elsewhere watches its own deadlines
        try:
            return await self._within(_phase(call), self._host.answer(call))
        except DeadlineError:
            await self._close_env()  # nobody knows what state it is in
            raise

    async def _within(self, phase: str, work: Awaitable[T]) -> T:
        seconds: float | None = getattr(self._limits, phase)
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await work
        except TimeoutError:
            if deadline.expired():
                raise DeadlineError(f"{phase} took longer than {seconds:g} s on the server") from None
            raise

    async def _close_env(self) -> None:
        """Close the environment, if there is one; its place is the server's to give back."""
        env, self._host.env = self._host.env, None
        if env is not None:
            await close_quietly(env, self._limits.close)

    async def _end(self, code: int, reason: str) -> None:
        """Say good-bye, and cut the connection where that takes too long."""
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._socket.close(code=code, message=reason.encode()[:120])
        except (OSError, RuntimeError):
            self._cut()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _phase(call: Call) -> str:
    """Which deadline a call has."""
    if isinstance(call, ResetCall):
        return "reset"
    if isinstance(call, Ask) and call.method in ("verify", "close"):
        return call.method
    return "step"
