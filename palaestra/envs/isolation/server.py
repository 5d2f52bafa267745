"""`palaestra serve`: environments for programs on other machines, over HTTP and WebSocket.

`GET /health` says that it is up, `GET /envs` what it serves, and `/session` is a WebSocket: one socket, one
environment. Clients are not trusted with more than that: they name environments that this process knows, and
everything that they can make grow has a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec

from palaestra.envs.core import Env
from palaestra.envs.isolation.messages import DEFAULT_PORT, KEY_PARAMETER, Open
from palaestra.envs.isolation.offers import Offers, Places, close_quietly
from palaestra.envs.isolation.placement import Kind
from palaestra.envs.registry import EnvSpec, make, registered_ids, spec
from palaestra.errors import EnvError, UnknownNameError, require

require("aiohttp", "remote")

from aiohttp import web  # noqa: E402

from palaestra.envs.isolation.session import Session  # noqa: E402
from palaestra.serving.door import Door, check_address, json, text  # noqa: E402

OFFER_SECONDS = 60.0
"""How long a forked environment waits for its client."""
STOPPING_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where a server listens, and what it allows."""

    host: str = "127.0.0.1"
    """Any other than a loopback address needs a token."""
    port: int = DEFAULT_PORT
    """0 for any free one."""
    token: str | None = None
    """What clients have to present; `None` for nothing."""
    sessions: int = 256
    """Most environments at once."""
    idle_seconds: float = 1800.0
    """A client that asks for nothing for so long is sent away."""
    message_bytes: int = 8 * 2**20
    """Largest message of a client; of every session one may be in memory."""
    heartbeat_seconds: float = 120.0
    """How often clients are asked whether they are still there."""
    placement: Kind = "inline"
    """Where environments run that are registered to run inline."""
    allow_arguments: bool = False
    """Let clients override the arguments of environments."""

    def __post_init__(self) -> None:
        """Refuse what is not safe.

        Raises:
            ConfigError: an address other than loopback without a token, or with a short one.
        """
        check_address(self.host, self.token)


class EnvServer(Door):
    """Serves environments while it is entered: `async with EnvServer(ids, settings) as server: ...`."""

    def __init__(self, ids: Sequence[str] = (), settings: ServerSettings | None = None) -> None:
        """Prepare to serve.

        Args:
            ids: what to serve; everything that is registered, except what is placed remotely, if empty.
            settings: `ServerSettings()` if not given.

        Raises:
            UnknownNameError: there is no such environment.
            EnvError: it is placed on another server.
        """
        self.settings = settings or ServerSettings()
        super().__init__(self.settings.host, self.settings.port, self.settings.token, self.settings.sessions)
        self.specs = {one.id: one for one in _served(ids)}
        """What is served, by id."""
        self._places = Places(self.settings.sessions)
        self._offers = Offers(self._places, OFFER_SECONDS)
        self._sessions: set[Session] = set()

    @property
    def sessions(self) -> int:
        """Environments that exist now, forks that wait for their clients included."""
        return self._places.taken

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            EnvError: the address cannot be had.
        """
        await self._open_door(EnvError)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send everybody away and close every environment."""
        self._shut_door()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOPPING_SECONDS):
                await asyncio.gather(*(session.stop() for session in self._sessions), self._offers.close())
        await self._cut_connections()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (refused := self._refuse(request)) is not None:
            return refused
        if request.method == "GET" and request.path == "/session":
            return await self._serve_session(request)
        if request.method == "GET" and request.path == "/health":
            return json({"status": "ok"})
        if request.method == "GET" and request.path == "/envs":
            return json([_described(one) for one in self.specs.values()])
        return text(404, "there is GET /health, GET /envs and the WebSocket /session")

    async def _serve_session(self, request: web.BaseRequest) -> web.StreamResponse:
        """One session, from the handshake to the end of its environment."""
        key, forked = request.query.get(KEY_PARAMETER), None
        if key is not None:
            if (forked := self._offers.claim(key)) is None:
                return text(410, "nothing waits under this key: it was used, or is too old")
        elif self._places.full:
            return text(503, f"all {self._places.most} sessions are taken")
        else:
            self._places.take()
        try:
            return await self._run_session(request, forked)
        finally:
            self._places.give_back()

    async def _run_session(self, request: web.BaseRequest, forked: Env[Any, Any] | None) -> web.StreamResponse:
        settings = self.settings
        socket = web.WebSocketResponse(
            max_msg_size=settings.message_bytes, heartbeat=settings.heartbeat_seconds, compress=False
        )
        try:
            await socket.prepare(request)
        except BaseException:
            if forked is not None:
                await close_quietly(forked)
            raise
        session = Session(socket, request.transport, self._make, self._offers, settings.idle_seconds)
        if forked is not None:
            session.hold(forked)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
        return socket

    def _make(self, request: Open) -> Env[Any, Any]:
        """What a client asked for, by this process's own registration.

        Raises:
            UnknownNameError: it is not served; the message has the nearest that are.
            EnvError: it comes with arguments that are not the server's.
        """
        base = self._find(request.id)
        foreign = [k for k, value in request.kwargs.items() if k not in base.kwargs or base.kwargs[k] != value]
        if foreign and not self.settings.allow_arguments:
            raise EnvError(
                f"this server lets nobody choose arguments of {base.id!r}, as {', '.join(foreign)}; register it there "
                f"with these, under an id of its own, or start palaestra serve --allow-arguments"
            )
        # Never through make's own arguments: a client's may have any name, that of the placement for example.
        return make(
            msgspec.structs.replace(
                base,
                kwargs={**base.kwargs, **request.kwargs},
                max_episode_steps=request.max_episode_steps or base.max_episode_steps,
                placement=msgspec.structs.replace(base.placement, kind=self._kind(base)),
            )
        )

    def _kind(self, base: EnvSpec) -> Kind:
        return self.settings.placement if base.placement.kind == "inline" else base.placement.kind

    def _find(self, id: str) -> EnvSpec:
        with suppress(UnknownNameError):
            if (newest := spec(id).id) in self.specs:
                return self.specs[newest]
        raise UnknownNameError("environment", id, self.specs)  # whatever else is registered here is nobody's business


def _served(ids: Sequence[str]) -> list[EnvSpec]:
    if not ids:
        return [one for one in map(spec, registered_ids()) if one.placement.kind != "remote"]
    specs = [spec(id) for id in ids]
    for one in specs:
        if one.placement.kind == "remote":
            raise EnvError(f"{one.id!r} runs on another server itself, at {one.placement.url}; serve it there")
    return specs


def _described(one: EnvSpec) -> dict[str, Any]:
    """What clients are told: nothing of the code or the machine."""
    names = ("id", "max_episode_steps", "reward_threshold", "nondeterministic")
    return {name: getattr(one, name) for name in names}
