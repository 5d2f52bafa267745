"""The remote back end: sandboxes that `palaestra sandboxes serve` holds on another machine."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from urllib.parse import urlsplit

from palaestra.errors import ConfigError, SandboxDaemonError, SandboxError
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.near import NearBackend
from palaestra.sandboxes.remote.connection import Connection
from palaestra.sandboxes.remote.frames import Hello
from palaestra.sandboxes.requests import Body, CloseAll, Reply, Request, Sink
from palaestra.sandboxes.spec import SandboxSpec
from palaestra.serving.door import TOKEN_VARIABLE


class RemoteBackend(Backend):
    """Starts sandboxes on a server. They live as long as the connection, and a while longer.

    A lost connection is never mended behind the caller's back: the calls that it had fail, what ran in them is stopped,
    and so does every later call of those sandboxes. `reconnect` gives them back, files and shells and all, where the
    server still has them; `start` after a loss begins anew, without them.
    """

    name = "remote"

    def __init__(self, url: str, token: str | None = None) -> None:
        """Nothing is connected yet.

        Args:
            url: where the server is, as in `http://127.0.0.1:8643`; `https://` where a proxy before it speaks TLS.
            token: the server's; what `PALAESTRA_TOKEN` holds if `None`.

        Raises:
            ConfigError: there is no such URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a server; write one as http://127.0.0.1:8643")
        self._url = url.rstrip("/")
        self._token = token or os.environ.get(TOKEN_VARIABLE, "").strip() or None
        self._line: Line | None = None
        self._connecting = asyncio.Lock()

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox; see `Backend.start`. Connects where there is no connection."""
        async with self._connecting:
            if self._line is None or self._line.lost:
                self._line = None
                self._line = await Line.open(self._url, self._token)
        return await NearBackend(self.name, self._line).start(spec)

    async def reconnect(self) -> None:
        """Go on with the sandboxes of a connection that was lost. What ran in them was stopped; files and shells are.

        Raises:
            SandboxDaemonError: the server cannot be reached, or has closed them.
        """
        async with self._connecting:
            if self._line is not None:
                await self._line.reconnect()

    async def close(self) -> None:
        """Close every sandbox and delete every snapshot. May be called more than once."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()


class Line:
    """The connection to one set of sandboxes, and after a loss the next one to the same."""

    def __init__(self, url: str, token: str | None, connection: Connection, hello: Hello) -> None:
        self._url, self._token, self._connection, self._hello = url, token, connection, hello

    @classmethod
    async def open(cls, url: str, token: str | None) -> Line:
        """Connect to new sandboxes.

        Raises:
            SandboxDaemonError: the server cannot be reached, or does not let this program in.
        """
        connection, hello = await _connected(url, token)
        return cls(url, token, connection, hello)

    @property
    def lost(self) -> bool:
        """Whether there is no connection any more."""
        return bool(self._connection.lost)

    async def ask(self, request: Request, body: Body | None = None, sink: Sink | None = None) -> Reply:
        """The server's reply; see `Far.ask`.

        Raises:
            SandboxDaemonError: the connection is lost, or broke meanwhile.
        """
        if self.lost:
            mend = f"RemoteBackend.reconnect() brings them back within {self._hello.grace:g} s"
            raise SandboxDaemonError(f"{self._connection.lost}; the sandboxes are lost, but {mend}")
        return await self._connection.ask(request, body, sink)

    async def reconnect(self) -> None:
        """Connect to the same sandboxes, if the connection is lost.

        Raises:
            SandboxDaemonError: the server cannot be reached, or has closed them.
        """
        if self.lost:
            self._connection, self._hello = await _connected(self._url, self._token, self._hello.key)

    async def close(self) -> None:
        """Close all that it has, and the connection."""
        with suppress(SandboxError):
            if not self.lost:
                await self._connection.ask(CloseAll())
        await self._connection.close()


async def _connected(url: str, token: str | None, key: str | None = None) -> tuple[Connection, Hello]:
    connection = Connection(url, token, key)
    try:
        return connection, await connection.opened
    except BaseException:
        await connection.close()
        raise
