"""One socket to an OpenEnv server, and the questions asked over it one at a time. The server is not trusted."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import urlsplit

import msgspec

from palaestra.envs.openenv.messages import Answer, answer_of, sent
from palaestra.errors import DataError, DeadlineError, EnvError, WorkerError, require

require("aiohttp", "remote")

import aiohttp  # noqa: E402

TOKEN_VARIABLE = "PALAESTRA_OPENENV_TOKEN"
"""Environment variable with the token that a server asks for, sent as `Authorization: Bearer`."""
CONNECT_SECONDS = 10.0
CLOSING_SECONDS = 5.0
LARGEST_SCHEMA = 4 * 2**20
"""Bytes of `GET /schema` that are read."""


class Connection:
    """The session of one environment; used by one caller at a time."""

    def __init__(self, url: str, seconds: float, largest_message: int) -> None:
        """To the server at `url`, once `open` is called.

        Args:
            url: `http://host:port`, or `ws://host:port`, with a path where the server has one.
            seconds: how long an answer may take.
            largest_message: bytes of an answer.

        Raises:
            EnvError: `url` is none.
        """
        self.url, self._seconds, self._largest = _http(url), seconds, largest_message
        self._client: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @property
    def alive(self) -> bool:
        """Whether a question can be asked."""
        return self._socket is not None and not self._socket.closed

    async def open(self) -> None:
        """Connect.

        Raises:
            WorkerError: nobody answers there.
            EnvError: what answers there is no OpenEnv server.
        """
        await self.close()
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_refuse_redirect)
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        self._client = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=aiohttp.ClientTimeout(total=self._seconds, sock_connect=CONNECT_SECONDS),
            trace_configs=[tracing],
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._socket = await self._client.ws_connect(
                    f"{self.url}/ws",
                    max_msg_size=self._largest,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING_SECONDS),
                )
        except BaseException as error:
            await self.close()
            raise self._explained(error) from None

    async def schema(self) -> Any:
        """The JSON schema of its actions.

        Raises:
            EnvError: the server has none.
        """
        assert self._client is not None
        try:
            async with self._client.get(f"{self.url}/schema", allow_redirects=False) as response:
                if response.status != 200:
                    raise EnvError(f"{self.url}/schema answers HTTP {response.status}; is it an OpenEnv server?")
                said = await response.content.read(LARGEST_SCHEMA + 1)
                while len(said) <= LARGEST_SCHEMA and (more := await response.content.read(LARGEST_SCHEMA)):
                    said += more
        except (OSError, aiohttp.ClientError) as error:
            raise self._explained(error) from None
        if len(said) > LARGEST_SCHEMA:
            raise EnvError(f"{self.url}/schema is larger than {LARGEST_SCHEMA:,} bytes")
        try:
            return msgspec.json.decode(said)["action"]
        except (msgspec.MsgspecError, RecursionError, UnicodeError, TypeError, KeyError):
            raise EnvError(f"{self.url}/schema says nothing of actions; is it an OpenEnv server?") from None

    async def ask(self, type: str, data: dict[str, Any] | None = None) -> Answer:
        """One question and its answer, which may be of type `error`. Whatever goes wrong ends the session.

        Raises:
            DeadlineError: no answer came in time.
            WorkerError: the connection broke.
            EnvError: what came is no answer, or the question cannot be sent.
        """
        frame = sent(type, data)
        if self._socket is None:
            raise WorkerError(f"{self.url}: the session is over; reset begins another")
        try:
            async with asyncio.timeout(self._seconds):
                await self._socket.send_str(frame)
                message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise WorkerError(f"{self.url}: {_farewell(message, self._largest)}")
            return answer_of(message.data)
        except BaseException as error:
            await self.drop()  # a late answer must never pass for that to the next question
            if isinstance(error, DataError):
                raise EnvError(f"{self.url}: {error}") from None
            if isinstance(error, TimeoutError):
                raise DeadlineError(f"{self.url} did not answer {type!r} in {self._seconds:g} s") from None
            if isinstance(error, OSError | aiohttp.ClientError):
                raise WorkerError(f"{self.url}: the connection broke: {error}") from None
            raise

    async def close(self) -> None:
        """Say good-bye, and hang up."""
        if self.alive:
            assert self._socket is not None
            try:
                async with asyncio.timeout(CLOSING_SECONDS):
                    await self._socket.send_str(sent("close"))
                    await self._socket.close()
            except (OSError, aiohttp.ClientError):  # TimeoutError is an OSError
                pass
        await self.drop()

    async def drop(self) -> None:
        """Hang up without a good-bye."""
        client, self._client, self._socket = self._client, None, None
        if client is not None:
            await client.close()

    def _explained(self, error: BaseException) -> BaseException:
        if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in (401, 403):
            return EnvError(f"{self.url} does not let this program in; put its token into {TOKEN_VARIABLE}")
        if isinstance(error, aiohttp.WSServerHandshakeError):
            return EnvError(f"{self.url}/ws answers HTTP {error.status}; is it an OpenEnv server?")
        if isinstance(error, aiohttp.InvalidURL):
            return EnvError(f"cannot use {self.url!r}; write http://host:port")
        if isinstance(error, OSError | aiohttp.ClientError):
            return WorkerError(f"cannot reach {self.url}: {error or 'no answer'}; is the server running there?")
        return error


def _http(url: str) -> str:
    text = url.strip().rstrip("/") if isinstance(url, str) else ""
    for socket, http in (("ws://", "http://"), ("wss://", "https://")):
        if text.startswith(socket):
            text = http + text.removeprefix(socket)
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
        parts.port  # noqa: B018  # a property that raises
    except ValueError:
        good = False
    if not good:
        raise EnvError(f"{url!r} is no address of an OpenEnv server; write http://host:port")
    return text


async def _refuse_redirect(session: object, context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
    raise EnvError(f"{params.url} sends elsewhere (HTTP {params.response.status}); give the address that it points to")


def _farewell(message: aiohttp.WSMessage, largest: int) -> str:
    if message.type is aiohttp.WSMsgType.BINARY:
        return "a binary message came; OpenEnv speaks text"
    if message.type is aiohttp.WSMsgType.ERROR:
        return f"the connection broke: {message.data} (the largest message that is read is {largest:,} bytes)"
    if message.type is aiohttp.WSMsgType.CLOSE:
        return f"the server ended the session: {message.extra or f'code {message.data}'}"
    return "the connection broke"
