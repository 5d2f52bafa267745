"""What our OpenEnv server answers, and what it bears."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs import registry
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.isolation.server import ServerSettings
from palaestra.envs.openenv.server import OpenEnvServer
from palaestra.envs.openenv.speech import action_in
from palaestra.envs.registry import register

ALIVE: list[Any] = []


class Parrot(Env[Any, Any]):
    """Repeats; some words do harm."""

    def __init__(self) -> None:
        ALIVE.append(self)

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[Any]:
        return Reset(
            f"{seed} {task.name if task else None} {options}", {"admissible_commands": ["a"], "task_type": "t"}
        )

    async def step(self, action: Any) -> Step[Any]:
        if action == "hang":
            await asyncio.Event().wait()
        if action == "exit":
            raise SystemExit(0)
        if action == "nan":
            return Step("", float("nan"), False, False, {})
        return Step({"said": action}, 0.5, action == "end", action == "cut", {"success": True, "n": 1})

    async def close(self) -> None:
        if self in ALIVE:
            ALIVE.remove(self)


class Broken(Env[Any, Any]):
    def __init__(self) -> None:
        raise RuntimeError("no display")


@pytest.fixture(autouse=True)
def parrot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    register("test/Parrot-v0", Parrot, placement=Placement(deadlines=Deadlines(step=0.3)))
    register("test/Broken-v0", Broken)
    ALIVE.clear()
    yield
    assert ALIVE == []


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[OpenEnvServer, aiohttp.ClientSession]]:
    ids = ["test/Parrot-v0", "alfworld/Household-v0", "test/Broken-v0"]
    async with OpenEnvServer(ids, ServerSettings(port=0, **settings)) as server, aiohttp.ClientSession() as client:
        yield server, client


async def ask(socket: aiohttp.ClientWebSocketResponse, message: Any) -> tuple[str, Any]:
    await socket.send_str(message if isinstance(message, str) else json.dumps(message))
    said = json.loads((await socket.receive(timeout=20)).data)
    return said["type"], said["data"]


async def until_empty(server: OpenEnvServer) -> None:
    end = time.monotonic() + 20
    while server.sessions or ALIVE:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_a_session() -> None:
    async def go() -> None:
        async with serving() as (server, client):
            async with client.ws_connect(f"{server.url}/ws") as socket:
                assert await ask(socket, {"type": "state"}) == ("state", {"episode_id": None, "step_count": 0})
                kind, said = await ask(socket, {"type": "reset", "data": {"seed": 3, "episode_id": "e", "other": 1}})
                assert (kind, said["reward"], said["done"]) == ("observation", None, False)
                assert said["observation"]["text"] == "3 None None"
                assert said["observation"]["admissible_commands"] == ["a"]
                assert said["observation"]["info"] == {"task_type": "t"}
                _, said = await ask(socket, {"type": "step", "data": {"message": "ü", "metadata": {}}})
                assert said["observation"]["text"] == '{"said":"ü"}'
                assert (said["reward"], said["observation"]["success"]) == (0.5, True)
                _, said = await ask(socket, {"type": "step", "data": {"message": "cut"}})
                assert said["done"]
                assert said["observation"]["truncated"]
                assert await ask(socket, {"type": "state"}) == ("state", {"episode_id": "e", "step_count": 2})
                await socket.send_str('{"type": "close"}')
                assert (await socket.receive(timeout=20)).type is aiohttp.WSMsgType.CLOSE
            await until_empty(server)

    asyncio.run(go())


def test_tasks_of_suites() -> None:
    async def go() -> None:
        async with serving() as (server, client), client.ws_connect(f"{server.url}/alfworld/Household-v0/ws") as socket:
            kind, _ = await ask(socket, {"type": "reset", "data": {"suite": "alfworld:test", "index": 2}})
            assert kind == "observation"
            for wrong, words in (
                ({"suite": "alfworld:test"}, "index"),
                ({"suite": "alfworld:test", "index": 10**9}, "tasks; index"),
                ({"suite": "babyai:test", "index": 1}, "no tasks for"),
                ({"suite": "../etc:test", "index": 1}, "unknown suite"),
                ({"suite": 5, "index": 1}, "reference"),
                ({"seed": -1}, "seed"),
                ({"seed": True}, "seed"),
                ({"options": 5}, "options"),
            ):
                kind, said = await ask(socket, {"type": "reset", "data": wrong})
                assert (kind, said["code"]) == ("error", "VALIDATION_ERROR")
                assert words in said["errors"][0]["msg"]

    asyncio.run(go())


def test_nonsense_and_harm_end_neither_session_nor_server() -> None:
    wrong = [
        ("no json", "INVALID_JSON"),
        ("[" * 50_000, "INVALID_JSON"),
        ("[]", "UNKNOWN_TYPE"),
        ({"type": ["reset"]}, "UNKNOWN_TYPE"),
        ({"type": "fly"}, "UNKNOWN_TYPE"),
        ({"type": "step", "data": 5}, "VALIDATION_ERROR"),
        ({"type": "step", "data": {}}, "VALIDATION_ERROR"),
        ({"type": "step", "data": {"message": 5}}, "VALIDATION_ERROR"),
        ({"type": "step", "data": {"message": "x", "more": 1}}, "VALIDATION_ERROR"),
        ({"type": "step", "data": {"type": "call_tool", "tool_name": 5}}, "VALIDATION_ERROR"),
        ({"type": "step", "data": {"message": "before reset"}}, "EXECUTION_ERROR"),
    ]

    async def go() -> None:
        async with serving() as (server, client), client.ws_connect(f"{server.url}/ws") as socket:
            for message, code in wrong:
                kind, said = await ask(socket, message)
                assert (kind, said["code"]) == ("error", code), message
            for word in ("exit", "nan", "hang"):
                await ask(socket, {"type": "reset", "data": {"seed": 1}})
                kind, said = await ask(socket, {"type": "step", "data": {"message": word}})
                assert (kind, said["code"]) == ("error", "EXECUTION_ERROR"), word
            kind, _ = await ask(socket, {"type": "reset"})
            assert kind == "observation"
            _, said = await ask(socket, {"type": "step", "data": {"type": "list_tools"}})
            assert said["observation"] == {"tools": []}
            _, said = await ask(socket, {"type": "mcp", "data": {"jsonrpc": "2.0", "method": "fly", "id": 4}})
            assert said["error"]["code"] == -32601
            assert said["id"] == 4

    asyncio.run(go())


def test_what_cannot_be_made_is_said_and_closed() -> None:
    async def go() -> None:
        async with serving() as (server, client):
            async with client.ws_connect(f"{server.url}/test/Broken-v0/ws") as socket:
                said = json.loads((await socket.receive(timeout=20)).data)
                assert said["data"] == {"message": "no display", "code": "FACTORY_ERROR"}
                assert (await socket.receive(timeout=20)).type is aiohttp.WSMsgType.CLOSE
            await until_empty(server)

    asyncio.run(go())


def test_one_question_each_over_http() -> None:
    async def go() -> None:
        async with serving() as (server, client):

            async def post(what: str, body: Any) -> tuple[int, Any]:
                async with client.post(
                    f"{server.url}/{what}",
                    data=io.BytesIO((body if isinstance(body, str) else json.dumps(body)).encode()),
                ) as got:
                    return got.status, await got.json()

            assert (await post("reset", ""))[1]["observation"]["text"].endswith("None None")
            assert (await post("reset", {"seed": 4}))[1]["observation"]["text"] == "4 None None"
            status, said = await post("step", {"action": {"message": "end"}, "seed": 1, "timeout_s": 5})
            assert (status, said["done"], said["reward"]) == (200, True, 0.5)
            assert (await post("step", {"action": {}}))[0] == 422
            assert (await post("step", {"action": {"message": "nan"}}))[0] == 500
            assert (await post("reset", "no json"))[0] == 422
            assert (await post("reset", "[1]"))[0] == 422
            assert (await post("reset", json.dumps({"x": "y" * 2_000_000})))[0] == 422
            assert (await post("mcp", "no json"))[1]["error"]["code"] == -32700
            assert (await post("mcp", {}))[1]["error"]["code"] == -32600
            listed = await post("mcp", {"jsonrpc": "2.0", "method": "tools/list", "id": "a"})
            assert listed[1] == {"jsonrpc": "2.0", "id": "a", "result": {"tools": []}}
            for path, status in (("state", 200), ("elsewhere", 404), ("a/b/ws", 404), ("reset", 404)):
                async with client.get(f"{server.url}/{path}") as got:
                    assert got.status == status, path
            await until_empty(server)

    asyncio.run(go())


def test_sessions_are_counted_and_a_lost_client_frees_its_place() -> None:
    async def go() -> None:
        async with serving(sessions=1) as (server, client):
            socket = await client.ws_connect(f"{server.url}/ws")
            await ask(socket, {"type": "reset"})
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await client.ws_connect(f"{server.url}/ws")
            async with client.post(f"{server.url}/reset") as got:
                assert got.status == 503
            await socket.send_str('{"type": "step", "data": {"message": "hang"}}')
            await socket.close()
            await until_empty(server)
            async with client.post(f"{server.url}/reset") as got:
                assert got.status == 200

    asyncio.run(go())


def test_web_pages_and_strangers_are_kept_out() -> None:
    async def go() -> None:
        async with serving(token="a token that is long enough") as (server, client):
            for headers in (
                {},
                {"Authorization": "Basic ?"},
                {"Authorization": "Basic YTpi"},
                {"Authorization": "Bearer no"},
                {"Origin": "http://example.org"},
            ):
                async with client.get(f"{server.url}/schema", headers=headers) as got:
                    assert got.status in (401, 403)
            right = {"Authorization": "Basic " + base64.b64encode(b"any:a token that is long enough").decode()}
            async with client.get(f"{server.url}/schema", headers=right) as got:
                assert got.status == 200

    asyncio.run(go())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
)


@given(JSON | st.dictionaries(st.sampled_from(["message", "tool_calls", "metadata", "x"]), JSON))
def test_any_json_is_an_action_or_none(data: Any) -> None:
    found = action_in(data)
    assert found is None or isinstance(found, str) or found["role"] == "assistant"
