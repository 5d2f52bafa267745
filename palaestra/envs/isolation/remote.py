"""The near side of `palaestra serve`: a WebSocket for each environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary

from palaestra.envs.isolation.channel import Channel
from palaestra.envs.isolation.messages import (
    KEY_PARAMETER,
    Fork,
    Forked,
    Open,
    Reply,
    Request,
    decode_reply,
)
from palaestra.envs.isolation.protocol import MAX_MESSAGE_BYTES, Call, Failed, Make, Result, encode
from palaestra.envs.registry import EnvSpec
from palaestra.errors import DataError, EnvError, WorkerError, require

require("aiohttp", "remote")

import aiohttp  # noqa: E402

from palaestra.serving.door import TOKEN_VARIABLE  # noqa: E402
from palaestra.serving.farewell import farewell, unreachable  # noqa: E402

SERVER = "palaestra serve"
"""What should run at the other end."""

T = TypeVar("T")

HEARTBEAT_SECONDS = 120.0
"""How often the server is asked whether it is still there."""
OPENING_AT_ONCE = 64
"""Sockets that one fork opens at the same time."""
CLOSING_SECONDS = 5.0


async def open_remote(spec: EnvSpec) -> Channel:
    """A channel to the server that the placement's `url` names.

    Raises:
        WorkerError: it cannot be reached, or has no place left.
        EnvError: there is no such URL, or the server does not let this program in.
    """
    url = spec.placement.url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EnvError(f"{spec.id!r} is placed at {url!r}; give its placement a url as in http://127.0.0.1:8642")
    return await _connect(url.rstrip("/"))


async def _connect(url: str, key: str | None = None) -> RemoteChannel:
    channel = RemoteChannel(url, key)
    try:
        await channel.opened
    except BaseException:
        channel.kill()
        raise
    return channel


class RemoteChannel:
    """One socket to a server, and the environment at its other end.

    A task of its own opens the socket, listens on it all the time (so that questions whether this side is still
    there are answered, and an end is noticed at once) and closes it.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        """Begin to connect: to a new environment, or to the fork that waits under `key`."""
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        """Done when the socket is there; raises why it is not."""
        self._url, self._key = url, key
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._end = "the connection was closed by this side"
        self._listening = loop.create_task(self._listen())

    async def call(self, call: Call) -> Result:
        """Have it done by the server; of a spec it is told only the id, the step limit and the arguments.

        Raises:
            WorkerError: the connection broke, or what came over it is no answer.
            EnvError: the call cannot be sent.
        """
        reply = await self._ask(_opening(call.spec) if isinstance(call, Make) else call)
        if isinstance(reply, Forked):
            raise WorkerError(f"{self._url} answered what nobody asked; is it of another version?")
        return reply

    async def fork(self, n: int) -> list[Channel]:
        """Fork the environment on the server, by the cheapest way that is right there, and connect to each copy.

        Raises:
            EnvError: it cannot be forked there, or there is no place left.
            WorkerError: the connection broke.
        """
        reply = await self._ask(Fork(n))
        if isinstance(reply, Failed):
            raise EnvError(reply.message if reply.error == "EnvError" else f"{reply.error}: {reply.message}")
        if not isinstance(reply, Forked) or len(reply.keys) != n:
            raise WorkerError(f"{self._url} answered what nobody asked; is it of another version?")
        return await self._connect_all(reply.keys)

    async def close(self) -> None:
        """Say good-bye; the server closes what is still open."""
        self._listening.cancel()
        await asyncio.wait({self._listening}, timeout=CLOSING_SECONDS)

    def kill(self) -> None:
        """Cut the connection; the server then ends the environment."""
        if self._socket is not None and (raw := self._socket.get_extra_info("socket")) is not None:
            with suppress(OSError):
                raw.shutdown(2)  # both ways, at once: a good-bye would wait for what hangs
        self._listening.cancel()

    async def _connect_all(self, keys: tuple[str, ...]) -> list[Channel]:
        few = asyncio.Semaphore(OPENING_AT_ONCE)

        async def connect(key: str) -> RemoteChannel:
            async with few:
                return await _connect(self._url, key)

        tasks = [asyncio.create_task(connect(key)) for key in keys]
        try:
            return [*await asyncio.gather(*tasks)]
        except BaseException:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, RemoteChannel):
                    ended.kill()
            raise

    async def _ask(self, request: Request) -> Reply:
        packed = encode(request)
        if self._answer is not None:
            raise EnvError("the environment is still busy with an earlier call; await it first")
        if self._listening.done() or self._socket is None:
            raise WorkerError(self._end)
        self._answer = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_bytes(packed)
            return decode_reply(await self._answer)
        except DataError as error:
            raise WorkerError(f"{self._url}: {error}") from error
        except (OSError, aiohttp.ClientError):
            await asyncio.wait({self._listening}, timeout=CLOSING_SECONDS)  # it knows why
            raise WorkerError(self._end) from None
        finally:
            self._answer = None

    async def _listen(self) -> None:
        """The socket's whole life."""
        try:
            async with _client() as client, self._open(client) as socket:
                self._socket = socket
                _resolve(self.opened, None)
                while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY and self._answer is not None:
                    _resolve(self._answer, message.data)
                self._end = f"{self._url}: {farewell(message, SERVER)}"
        except EnvError as error:
            _reject(self.opened, error)
        except (OSError, aiohttp.ClientError, ValueError) as error:
            _reject(self.opened, _explained(self._url, error))
        finally:
            _reject(self.opened, WorkerError(self._end))
            _reject(self._answer, WorkerError(self._end))

    @asynccontextmanager
    async def _open(self, client: aiohttp.ClientSession) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        query = f"?{KEY_PARAMETER}={quote(self._key)}" if self._key else ""
        async with client.ws_connect(
            f"{self._url}/session{query}",
            headers={"Authorization": f"Bearer {token}"} if token else None,
            heartbeat=HEARTBEAT_SECONDS,
            max_msg_size=MAX_MESSAGE_BYTES + 1024,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING_SECONDS),
        ) as socket:
            yield socket


def _opening(spec: EnvSpec) -> Open:
    return Open(id=spec.id, max_episode_steps=spec.max_episode_steps, kwargs=spec.kwargs)


@dataclass(slots=True)
class _Shared:
    """The HTTP client of a loop, and how many sockets use it."""

    client: aiohttp.ClientSession
    users: int = 0


_CLIENTS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


@asynccontextmanager
async def _client() -> AsyncIterator[aiohttp.ClientSession]:
    """The loop's HTTP client: made for the first socket, closed after the last."""
    loop = asyncio.get_running_loop()
    shared = _CLIENTS.get(loop)
    if shared is None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)  # the near side has deadlines of its own
        shared = _CLIENTS[loop] = _Shared(aiohttp.ClientSession(connector=connector, timeout=timeout))
    shared.users += 1
    try:
        yield shared.client
    finally:
        shared.users -= 1
        if shared.users == 0:
            del _CLIENTS[loop]
            await shared.client.close()


def _resolve(waiting: asyncio.Future[T] | None, value: T) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(value)


def _reject(waiting: asyncio.Future[T] | None, error: EnvError) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # whoever has stopped waiting need not be told


def _explained(url: str, error: Exception) -> EnvError:
    """Why there is no connection, and what to do about it."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        if error.status == 503:
            return WorkerError(f"{url} is full: close some environments, or raise palaestra serve --sessions")
        if error.status == 410:
            return WorkerError(f"{url} no longer has the forked environment: it was not fetched in time")
    unmended = isinstance(error, aiohttp.WSServerHandshakeError | aiohttp.InvalidURL | ValueError)
    return (EnvError if unmended else WorkerError)(unreachable(url, error, SERVER))
