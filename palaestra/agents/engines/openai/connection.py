"""One HTTP request to an endpoint that nobody vouches for: bounded in bytes and time, never redirected."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from palaestra.agents.engines.openai.address import Address
from palaestra.agents.engines.openai.key import ApiKey
from palaestra.agents.engines.openai.limits import ApiLimits
from palaestra.errors import EngineError, require

require("aiohttp", "openai")

import aiohttp  # noqa: E402

CONNECT_SECONDS = 10.0


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """At most `ApiLimits.longest_answer` bytes."""


class Unreachable(EngineError):
    """The request was not answered: nobody there, the connection broke, or it took too long. Again may help."""


class Connection:
    """Keeps connections to one endpoint. They are made by the first request, in its event loop."""

    def __init__(self, address: Address, key: ApiKey, limits: ApiLimits) -> None:
        self._address, self._key, self._limits = address, key, limits
        self._http: aiohttp.ClientSession | None = None
        self._closed = False

    async def ask(self, method: str, path: str, payload: Mapping[str, Any] | None = None) -> Answer:
        """Send one request and read its answer to the end, whatever its status.

        Raises:
            Unreachable: there is no answer.
            EngineError: the answer is too long, compressed, or sends us elsewhere; or all is closed.
        """
        body = None if payload is None else msgspec.json.encode(payload)
        http = self._opened()
        try:
            async with http.request(
                method,
                f"{self._address.url}/{path}",
                data=body,
                headers=self._key.headers,
                allow_redirects=False,
                proxy=self._proxy(),
            ) as response:
                self._check(response)
                return Answer(response.status, response.headers, await self._read(response))
        except TimeoutError:
            told = f"{self._address.host} did not answer within {self._limits.seconds:g} s"
            raise Unreachable(told) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{self._address.host} cannot be reached: {self._told(error)}") from None

    async def close(self) -> None:
        """Close the connections; requests under way fail."""
        self._closed = True
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise EngineError("the engine is closed")
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._limits.concurrency),
                timeout=aiohttp.ClientTimeout(total=self._limits.seconds, sock_connect=CONNECT_SECONDS),
                headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a kilobyte may become a gigabyte
                trust_env=False,  # it would send the login that ~/.netrc has for the host
            )
        return self._http

    def _proxy(self) -> str | None:
        """The environment's, for hosts that it does not except."""
        if self._address.is_local or proxy_bypass(self._address.host):
            return None
        return getproxies().get(urlsplit(self._address.url).scheme)

    def _check(self, response: aiohttp.ClientResponse) -> None:
        host = self._address.host
        if 300 <= response.status < 400:
            where = shown(self._key.hide(response.headers.get("Location", "")))
            told = f"sends us to {where or 'nowhere'}, and keys are not carried around: name that address"
            raise EngineError(f"{host} {told}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise EngineError(f"{host} compresses its answer although it was asked not to")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self._limits.longest_answer:
                raise EngineError(f"{self._address.host} answers with more than {self._limits.longest_answer:,} bytes")
            parts.append(part)
        return b"".join(parts)

    def _told(self, error: BaseException) -> str:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
        if isinstance(cause, ConnectionError) and cause.errno:
            text = os.strerror(cause.errno).lower()  # asyncio tells the address again instead
        return shown(self._key.hide(text)) or type(error).__name__


def shown(text: str, longest: int = 300) -> str:
    """What somebody else wrote as part of one line of ours: without control characters, cut."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * longest]).split())
    return line if len(line) <= longest else f"{line[:longest]}..."
