"""One OpenEnv client and its one environment."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from palaestra.envs.core import Env
from palaestra.envs.isolation.host import failure
from palaestra.envs.isolation.offers import Offers, is_own
from palaestra.envs.isolation.protocol import Call, Failed, ResetCall, ResetDone, StepCall, StepDone, encode_json
from palaestra.envs.isolation.session import Session
from palaestra.envs.openenv import speech
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError, PalaestraError

LARGEST_SEED = 2**63 - 1


class OpenEnvSession(Session):
    """Speaks OpenEnv over the socket; silence, limits and the end are those of `Session`."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        offers: Offers,
        idle_seconds: float,
        make_env: Callable[[], Env[Any, Any]],
        find_task: Callable[[str, int], Task],
    ) -> None:
        """Over a socket; one that is not prepared serves for `answer` alone.

        Args:
            socket, transport, offers, idle_seconds: see `Session`.
            make_env: makes the environment, or raises `PalaestraError`.
            find_task: the task of a suite, by reference and index; raises `PalaestraError`.
        """
        super().__init__(socket, transport, lambda request: make_env(), offers, idle_seconds)
        self._make_env, self._find_task = make_env, find_task
        self._episode = ""
        self._turns = 0
        self._tools: list[dict[str, Any]] | None = None

    async def _respond(self, frame: bytes | str, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait({before})
        said = await self.answer(frame)
        self._busy, self._active = False, asyncio.get_running_loop().time()
        if said is None:
            await self._end(1000, "closed")
        else:
            await self._send(said)

    async def answer(self, frame: bytes | str) -> str | None:
        """The answer to a message; `None` to a good-bye. Nothing that an environment does may end the server."""
        try:
            message = msgspec.json.decode(frame)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            return speech.error("INVALID_JSON", f"Invalid JSON: {error}")
        if not isinstance(message, dict):
            return speech.error("UNKNOWN_TYPE", "a message is an object with a type")
        type, data = message.get("type"), message.get("data", {})
        if type == "close":
            return None
        doers = {"reset": self._reset, "step": self._step, "state": self._state, "mcp": self._mcp}
        doer = doers.get(type) if isinstance(type, str) else None
        if doer is None:
            return speech.error("UNKNOWN_TYPE", f"Unknown message type: {str(type)[:80]}")
        if not isinstance(data, dict):
            return _invalid("data has to be an object")
        try:
            return await doer(data)
        except BaseException as error:
            if is_own(error):
                raise
            return speech.error("EXECUTION_ERROR", _told(failure(error)))

    async def open(self) -> None:
        """Make the environment, if there is none.

        Raises:
            PalaestraError: it cannot be made.
        """
        if self._host.env is None:
            self.hold(env := self._make_env())
            await env.start()

    async def finish(self) -> None:
        """Close the environment."""
        await self._close_env()

    async def _reset(self, data: dict[str, Any]) -> str:
        try:
            call = self._reset_call(data)
        except PalaestraError as error:
            return _invalid(str(error))
        done = await self._asked(call)
        if isinstance(done, Failed):
            return speech.error("EXECUTION_ERROR", _told(done))
        assert isinstance(done, ResetDone)
        given = data.get("episode_id")
        self._episode = given[:255] if isinstance(given, str) else secrets.token_hex(8)
        self._turns, self._tools = 0, done.tools
        return encode_json({"type": "observation", "data": speech.observation(done)})

    def _reset_call(self, data: dict[str, Any]) -> ResetCall:
        seed, suite, index, options = (data.get(name) for name in ("seed", "suite", "index", "options"))
        if not (seed is None or _is_whole(seed)):
            raise EnvError("seed has to be a whole number from 0")
        if not (options is None or isinstance(options, dict)):
            raise EnvError("options has to be an object")
        if suite is None:
            return ResetCall(seed=seed, options=options)
        if not isinstance(suite, str) or not isinstance(index, int) or not _is_whole(index):
            raise EnvError("suite has to be a reference, as in alfworld:train, with index, the number of the task")
        task = self._find_task(suite, index)
        return ResetCall(seed=task.seed if seed is None else seed, task=task, options=options)

    async def _step(self, data: dict[str, Any]) -> str:
        kind = data.get("type")
        if kind == "list_tools":
            tools = speech.listed(await self._known_tools())
            return encode_json({"type": "observation", "data": _seen({"tools": tools})})
        if kind == "call_tool":
            name, arguments = data.get("tool_name"), data.get("arguments", {})
            if not isinstance(name, str) or not isinstance(arguments, dict):
                return _invalid("a tool call has tool_name, a text, and arguments, an object")
            return await self._act(speech.tool_message(name, arguments), name)
        action = speech.action_in(data)
        if action is None:
            return _invalid("an action has message, a text, and may have tool_calls, a list")
        return await self._act(action)

    async def _act(self, action: Any, tool: str = "") -> str:
        done = await self._asked(StepCall(action))
        if isinstance(done, Failed):
            return speech.error("EXECUTION_ERROR", _told(done))
        assert isinstance(done, StepDone)
        self._turns += 1
        data = speech.called(tool, done) if tool else speech.observation(done)
        return encode_json({"type": "observation", "data": data})

    async def _state(self, data: dict[str, Any]) -> str:
        state = {"episode_id": self._episode or None, "step_count": self._turns}
        return encode_json({"type": "state", "data": state})

    async def _mcp(self, data: dict[str, Any]) -> str:
        return encode_json({"type": "mcp", "data": await self.rpc(data)})

    async def rpc(self, request: Any) -> dict[str, Any]:
        """The answer to a request of MCP, in JSON-RPC: `tools/list`, `tools/call`."""
        if (
            not isinstance(request, dict)
            or request.get("jsonrpc") != "2.0"
            or not isinstance(request.get("method"), str)
        ):
            return _rpc(None, error=(-32600, "Invalid Request"))
        id, method, params = request.get("id"), request["method"], request.get("params", {})
        if not isinstance(params, dict):
            return _rpc(id, error=(-32602, "params has to be an object"))
        if method == "tools/list":
            return _rpc(id, result={"tools": speech.listed(await self._known_tools())})
        if method != "tools/call":
            return _rpc(id, error=(-32601, f"Method not found: {method[:80]}"))
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return _rpc(id, error=(-32602, "a tool call has name, a text, and arguments, an object"))
        done = await self._asked(StepCall(speech.tool_message(name, arguments)))
        if not isinstance(done, StepDone):
            return _rpc(id, error=(-32603, _told(done)))
        self._turns += 1
        return _rpc(id, result=speech.called(name, done))

    async def _known_tools(self) -> list[dict[str, Any]] | None:
        """Those of the episode; one is begun where there is none, because tools are asked for first."""
        if not self._episode:
            await self._reset({"seed": 0})
        return self._tools

    async def _asked(self, call: Call) -> Any:
        await self.open()
        return await self._call(call)


def _seen(observation: dict[str, Any]) -> dict[str, Any]:
    return {"observation": observation, "reward": None, "done": False}


def _invalid(why: str) -> str:
    return speech.error("VALIDATION_ERROR", "Invalid message", errors=[{"type": "value_error", "loc": [], "msg": why}])


def _rpc(id: Any, result: Any = None, error: tuple[int, str] | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"jsonrpc": "2.0", "id": id if isinstance(id, str | int) else None}
    if error is None:
        return {**said, "result": result}
    return {**said, "error": {"code": error[0], "message": error[1]}}


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= LARGEST_SEED


def _told(failed: Failed) -> str:
    """Nothing of the code or the machine."""
    return failed.message if failed.error.endswith("Error") and failed.message else f"{failed.error}: {failed.message}"
