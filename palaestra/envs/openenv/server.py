"""`palaestra serve --protocol openenv`: our environments for trainers that speak OpenEnv.

An OpenEnv server has one environment. With several, each is below its id: `http://host:port/alfworld/Household-v0`; the
first is at the root as well. `/ws` is a session; `POST /reset` and `POST /step` are an episode of one question each, as
they are in OpenEnv itself.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from palaestra.envs.core import Env
from palaestra.envs.isolation.host import failure
from palaestra.envs.isolation.messages import Open
from palaestra.envs.isolation.offers import is_own
from palaestra.envs.isolation.protocol import encode_json
from palaestra.envs.isolation.server import EnvServer, ServerSettings
from palaestra.envs.openenv import speech
from palaestra.envs.openenv.session import OpenEnvSession
from palaestra.envs.registry import EnvSpec
from palaestra.envs.tasks import Task, TaskSuite, load_suite
from palaestra.errors import EnvError

MOST_SUITES = 64
"""Suites that a server keeps loaded; further ones are refused."""


class OpenEnvServer(EnvServer):
    """Serves environments to OpenEnv's clients while it is entered; limits are those of `EnvServer`."""

    def __init__(self, ids: Sequence[str] = (), settings: ServerSettings | None = None) -> None:
        """Prepare to serve; see `EnvServer`."""
        super().__init__(ids, settings)
        self._suites: dict[str, TaskSuite] = {}

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (refused := self._refuse(request)) is not None:
            return refused
        spec, what = self._asked_for(request.path)
        if spec is None:
            return _json({"detail": "Not Found", "environments": list(self.specs)}, 404)
        if what == "ws" and request.method == "GET":
            return await self._serve_session(request)
        if request.method == "GET" and (told := _about(spec, what)) is not None:
            return _json(told)
        if request.method == "POST" and what in ("reset", "step", "mcp"):
            return await self._once(request, spec, what)
        return _json({"detail": "Not Found"}, 404)

    def _has_token(self, request: web.BaseRequest) -> bool:
        """As well in the address, `http://any:TOKEN@host:port`, because OpenEnv's clients send no headers."""
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return super()._has_token(request)
        try:
            password = base64.b64decode(given, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(password, (self.settings.token or "").encode())

    def _asked_for(self, path: str) -> tuple[EnvSpec | None, str]:
        """Which environment, and what of it."""
        base, _, what = path.strip("/").rpartition("/")
        if not base:
            return next(iter(self.specs.values()), None), what
        return self.specs.get(base), what

    async def _run_session(self, request: web.BaseRequest, forked: Env[Any, Any] | None) -> web.StreamResponse:
        settings = self.settings
        spec, _ = self._asked_for(request.path)
        assert spec is not None
        socket = web.WebSocketResponse(
            max_msg_size=settings.message_bytes, heartbeat=settings.heartbeat_seconds, compress=False
        )
        await socket.prepare(request)
        session = self._session(socket, request, spec)
        self._sessions.add(session)
        try:
            if await _opened(session, socket):
                await session.run()
        finally:
            session.done.set()
            self._sessions.discard(session)
        return socket

    def _session(self, socket: web.WebSocketResponse, request: web.BaseRequest, spec: EnvSpec) -> OpenEnvSession:
        return OpenEnvSession(
            socket,
            request.transport,
            self._offers,
            self.settings.idle_seconds,
            make_env=lambda: self._make(Open(id=spec.id)),
            find_task=lambda reference, index: self._task(spec, reference, index),
        )

    async def _once(self, request: web.BaseRequest, spec: EnvSpec, what: str) -> web.Response:
        """A question without a session: an environment is made for it, and closed."""
        try:
            body = await request.read()
            data = msgspec.json.decode(body) if body else {}
        except (web.HTTPException, msgspec.MsgspecError, RecursionError, UnicodeError):
            data = None
        if what == "mcp" and not isinstance(data, dict):
            return _json({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}})
        if not isinstance(data, dict):
            return _json({"detail": "the body has to be a JSON object of at most 1 MiB"}, 422)
        if self._places.full:
            return _json({"detail": f"all {self._places.most} sessions are taken"}, 503)
        self._places.take()
        session = self._session(web.WebSocketResponse(), request, spec)
        try:
            if what == "mcp":
                return _json(await session.rpc(data))
            return await _episode(session, what, data)
        finally:
            await session.finish()
            self._places.give_back()

    def _task(self, spec: EnvSpec, reference: str, index: int) -> Task:
        """A task that the served environment plays.

        Raises:
            PalaestraError: there is no such suite, or it is another environment's.
        """
        if reference not in self._suites:
            if len(self._suites) >= MOST_SUITES or len(reference) > 200:
                raise EnvError("this server has loaded as many suites as it may; name one of those")
            suite = load_suite(reference)
            if not len(suite) or suite[0].env != spec.id:
                raise EnvError(f"{reference!r} has no tasks for {spec.id}")
            self._suites[reference] = suite
        suite = self._suites[reference]
        if index >= len(suite):
            raise EnvError(f"{reference!r} has {len(suite)} tasks; index has to be below")
        return suite[index]


async def _opened(session: OpenEnvSession, socket: web.WebSocketResponse) -> bool:
    """Whether there is an environment; else the client is told, and sent away."""
    try:
        await session.open()
    except BaseException as error:
        if is_own(error):
            raise
        await socket.send_str(speech.error("FACTORY_ERROR", failure(error).message))
        await session.finish()
        await socket.close()
        return False
    return True


def _about(spec: EnvSpec, what: str) -> dict[str, Any] | None:
    """What can be read without an environment."""
    if what == "health":
        return {"status": "healthy"}
    if what == "schema":
        return {"action": speech.ACTION, "observation": speech.OBSERVATION, "state": speech.STATE}
    if what == "metadata":
        return speech.metadata(spec)
    if what == "state":
        return {"episode_id": None, "step_count": 0}
    return speech.openapi() if what == "openapi.json" else None


async def _episode(session: OpenEnvSession, what: str, data: dict[str, Any]) -> web.Response:
    """`POST /reset`, or `POST /step`: the first step of an episode with the body's seed."""
    first = data if what == "reset" else {name: data[name] for name in ("seed", "suite", "index") if name in data}
    said = await session.answer(encode_json({"type": "reset", "data": first}))
    if what == "step" and said is not None and msgspec.json.decode(said)["type"] == "observation":
        said = await session.answer(encode_json({"type": "step", "data": data.get("action")}))
    answer = msgspec.json.decode(said or "{}")
    if answer.get("type") == "observation":
        return _json(answer["data"])
    problem = answer.get("data", {})
    if problem.get("code") == "VALIDATION_ERROR":
        return _json({"detail": problem.get("errors")}, 422)
    return _json({"detail": problem.get("message")}, 500)


def _json(value: Any, status: int = 200) -> web.Response:
    response = web.Response(status=status, body=encode_json(value).encode(), content_type="application/json")
    response.force_close()
    return response
