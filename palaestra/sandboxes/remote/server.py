"""`palaestra sandboxes serve`: sandboxes of a local back end for programs on other machines.

`GET /health` says that it is up, `GET /sandboxes` how full it is. `/connect` is a WebSocket: one socket, one client,
any number of its sandboxes. Clients see their own sandboxes only, and everything that they can make grow has a limit.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from palaestra.errors import SandboxDaemonError, require
from palaestra.sandboxes.core import Backend
from palaestra.sandboxes.desk import Desk
from palaestra.sandboxes.leases import Lease
from palaestra.sandboxes.reaper import reap_soon
from palaestra.sandboxes.remote.admission import Admission, Allowed
from palaestra.sandboxes.remote.frames import DEFAULT_PORT, KEY_PARAMETER, MESSAGE_BYTES

require("aiohttp", "remote")

from aiohttp import WSCloseCode, web  # noqa: E402

from palaestra.sandboxes.remote.tenant import Tenant, Visit  # noqa: E402
from palaestra.serving.door import Door, check_address, json, text  # noqa: E402

STOPPING_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where a server listens, and what it allows."""

    host: str = "127.0.0.1"
    """Any other than a loopback address needs a token."""
    port: int = DEFAULT_PORT
    """0 for any free one."""
    token: str | None = None
    """What clients have to present; `None` for nothing."""
    clients: int = 64
    """Most clients at once, those included that have vanished and may come back."""
    grace_seconds: float = 30.0
    """How long the sandboxes of a client that has vanished wait for it."""
    heartbeat_seconds: float = 120.0
    """How often clients are asked whether they are still there; half as long they may take to answer."""
    allowed: Allowed = field(default_factory=Allowed)
    """See `Allowed`."""

    def __post_init__(self) -> None:
        """Refuse what is not safe.

        Raises:
            ConfigError: an address other than loopback without a token, or with a short one.
        """
        check_address(self.host, self.token)


class SandboxServer(Door):
    """Serves a back end while it is entered: `async with SandboxServer(backend, settings) as server: ...`."""

    def __init__(self, backend: Backend, settings: ServerSettings | None = None) -> None:
        """Prepare to serve.

        Args:
            backend: what starts sandboxes; the server closes it.
            settings: `ServerSettings()` if not given.
        """
        self.settings = settings or ServerSettings()
        super().__init__(self.settings.host, self.settings.port, self.settings.token, self.settings.clients)
        self._backend = backend
        self._admission = Admission(self.settings.allowed)
        self._tenants: dict[str, Tenant] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._lease: Lease | None = None
        """Holds the folder for files on their way, which is removed even after `kill -9`."""

    @property
    def backend(self) -> str:
        """Name of the back end."""
        return self._backend.name

    @property
    def sandboxes(self) -> int:
        """Those that exist now, of all clients."""
        return self._admission.sandboxes

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            SandboxDaemonError: the address cannot be had.
            SandboxError: files on their way cannot be kept.
        """
        reap_soon()
        self._lease = Lease.open("sandboxes serve")
        try:
            await self._open_door(SandboxDaemonError)
        except BaseException:
            self._lease.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send everybody away and close every sandbox."""
        self._shut_door()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOPPING_SECONDS):
                await asyncio.gather(*(self._dismiss(tenant) for tenant in self._tenants.values()), *self._ending)
        await self._backend.close()
        await self._cut_connections()
        if self._lease is not None:
            self._lease.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (refused := self._refuse(request)) is not None:
            return refused
        if request.method == "GET" and request.path == "/connect":
            return await self._serve(request)
        if request.method == "GET" and request.path == "/health":
            return json({"status": "ok"})
        if request.method == "GET" and request.path == "/sandboxes":
            places = {"sandboxes": self._admission.sandboxes, "most": self.settings.allowed.sandboxes}
            return json({"backend": self.backend, "clients": len(self._tenants), **places})
        return text(404, "there is GET /health, GET /sandboxes and the WebSocket /connect")

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """One socket, from the handshake to its end."""
        key = request.query.get(KEY_PARAMETER)
        if key is None and len(self._tenants) >= self.settings.clients:
            return text(503, f"all {self.settings.clients} places for clients are taken")
        tenant = self._tenant() if key is None else self._tenants.get(key)
        if tenant is None:
            return text(410, "nothing waits under this key: its client was away for too long")
        visit: Visit | None = None
        try:
            socket = web.WebSocketResponse(
                max_msg_size=MESSAGE_BYTES + 1024, heartbeat=self.settings.heartbeat_seconds, compress=False
            )
            await socket.prepare(request)
            visit = Visit(tenant, socket, request.transport)
            await tenant.serve(visit)
            return socket
        finally:
            self._left(tenant, visit)

    def _tenant(self) -> Tenant:
        assert self._lease is not None
        desk = Desk(self._backend, self._lease.folder(), self._admission)
        tenant = Tenant(desk, self.settings.grace_seconds, self.settings.allowed.file_bytes)
        self._tenants[tenant.key] = tenant
        return tenant

    def _left(self, tenant: Tenant, visit: Visit | None) -> None:
        """A socket has ended: its client is gone for now, or for good."""
        if tenant.visit is not None or tenant.key not in self._tenants:
            return
        if visit is not None and not visit.farewell:
            tenant.leave(lambda: self._dismiss_soon(tenant))
        else:
            self._dismiss_soon(tenant)

    def _dismiss_soon(self, tenant: Tenant) -> None:
        task = asyncio.create_task(self._dismiss(tenant))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _dismiss(self, tenant: Tenant) -> None:
        """End a client and close its sandboxes. Its place is free when they are."""
        tenant.stay()
        if (visit := tenant.visit) is not None:
            await visit.end(WSCloseCode.GOING_AWAY, "the server was stopped")
            await visit.over.wait()
        try:
            await tenant.desk.close()
        finally:
            self._tenants.pop(tenant.key, None)
