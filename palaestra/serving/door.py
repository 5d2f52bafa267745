"""The door of a server: it listens, and lets in who may come in.

Web pages may not, nor may anybody without the token where there is one; and there are never more connections than the
server can bear.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlsplit

import msgspec

from palaestra.errors import ConfigError, PalaestraError, require

require("aiohttp", "remote")

from aiohttp import web  # noqa: E402
from aiohttp.http_exceptions import HttpProcessingError  # noqa: E402

TOKEN_VARIABLE = "PALAESTRA_TOKEN"
"""Environment variable that holds the token, on both sides."""
MIN_TOKEN_CHARACTERS = 16
HEADER_SECONDS = 10.0
"""How long a connection may take to say what it wants."""
SPARE_CONNECTIONS = 64
"""Connections beyond those that a server is for: for `/health`, lists and refusals."""


def check_address(host: str, token: str | None) -> None:
    """Refuse to listen where it is not safe.

    Raises:
        ConfigError: an address other than loopback without a token, or with a short one.
    """
    if is_loopback(host):
        return
    mend = "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
    if not token:
        raise ConfigError(f"{host} can be reached by others: set {TOKEN_VARIABLE} to a token; {mend}")
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise ConfigError(f"the token in {TOKEN_VARIABLE} has fewer than {MIN_TOKEN_CHARACTERS} characters; {mend}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`, a name or an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Door(ABC):
    """Listens on one address; `_handle` answers those who come in."""

    def __init__(self, host: str, port: int, token: str | None, connections: int) -> None:
        """Prepare to listen.

        Args:
            host: name or address.
            port: 0 for any free one.
            token: what clients have to present; `None` for nothing.
            connections: how many the server is for; there are some more for other purposes.
        """
        self._host, self._port, self._token, self._connections = host, port, token, connections
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it can be reached."""
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _open_door(self, error_type: type[PalaestraError]) -> None:
        """Listen.

        Raises:
            PalaestraError: the address cannot be had; of `error_type`.
        """
        self._http = web.Server(
            self._handle, access_log=None, logger=_LOG, keepalive_timeout=HEADER_SECONDS, lingering_time=1.0
        )
        try:
            self._listener = await asyncio.get_running_loop().create_server(self._accept, self._host, self._port)
        except (OSError, OverflowError) as error:
            raise error_type(f"cannot listen on {self._host}:{self._port}: {error}; choose another") from error

    def _shut_door(self) -> None:
        """Let nobody in any more."""
        if self._listener is not None:
            self._listener.close()

    async def _cut_connections(self) -> None:
        """End what is still connected."""
        if self._http is not None:
            await self._http.shutdown(1.0)

    @abstractmethod
    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; `_refuse` is asked first."""

    def _accept(self) -> asyncio.Protocol:
        assert self._http is not None
        crowded = len(self._http.connections) >= self._connections + SPARE_CONNECTIONS
        return _Refusing() if crowded else self._http()

    def _refuse(self, request: web.BaseRequest) -> web.Response | None:
        """A refusal, where the client may not have what it asks for."""
        if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
            return text(403, "web pages may not talk to this server")
        if self._token is None:
            # A web page whose own name was made to point here asks under that name.
            try:
                name = urlsplit(f"//{request.host}").hostname or ""
            except ValueError as error:
                return text(400, f"the header Host makes no sense: {error}")
            return None if is_loopback(name) else text(403, f"this server is not called {name}")
        if request.path == "/health" or self._has_token(request):
            return None
        return text(401, f"wrong or no token: send Authorization: Bearer, with the server's {TOKEN_VARIABLE}")

    def _has_token(self, request: web.BaseRequest) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, f"Bearer {self._token}".encode())


def json(value: Any) -> web.Response:
    """An answer that ends its connection."""
    response = web.Response(body=msgspec.json.encode(value), content_type="application/json")
    response.force_close()
    return response


def text(status: int, said: str) -> web.Response:
    """An answer for people that ends its connection."""
    response = web.Response(status=status, text=said)
    response.force_close()
    return response


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether it says that something is wrong here, rather than with what a client sent: anybody could fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_LOG = logging.getLogger(__name__)
_LOG.addFilter(_is_ours)


class _Refusing(asyncio.Protocol):
    """Hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hang up."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
