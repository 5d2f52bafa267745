"""What our client makes of servers that are broken, slow, of another version or hostile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from palaestra.envs.openenv.connection import TOKEN_VARIABLE, Connection
from palaestra.envs.openenv.env import RemoteEnv
from palaestra.envs.tasks import Task
from palaestra.errors import ConfigError, DataError, DeadlineError, EnvError, WorkerError

SCHEMA = {
    "action": {"title": "Say", "type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
}
GOOD = {"type": "observation", "data": {"observation": {"text": "hello"}, "reward": None, "done": False}}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def step(**changed: Any) -> dict[str, Any]:
    return {"type": "observation", "data": {**GOOD["data"], **changed}}  # type: ignore[dict-item]


@asynccontextmanager
async def server(
    answers: list[Any], schema: Any = SCHEMA, ws: Handler | None = None
) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that gives these answers, whatever is asked; and what it was asked."""
    asked: list[Any] = []

    async def talk(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Authorization"))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for answer in answers:
            message = await socket.receive()
            if message.type is not web.WSMsgType.TEXT:
                break
            asked.append(json.loads(message.data))
            if answer == "hang up":
                assert request.transport is not None
                request.transport.abort()
            elif answer == "goodbye":
                await socket.close(code=1011, message=b"out of memory")
            elif isinstance(answer, bytes):
                await socket.send_bytes(answer)
            elif answer != "silence":
                await socket.send_str(answer if isinstance(answer, str) else json.dumps(answer))
        await socket.receive()
        return socket

    async def tell(request: web.Request) -> web.StreamResponse:
        return web.Response(text=schema) if isinstance(schema, str) else web.json_response(schema)

    app = web.Application()
    app.router.add_get("/ws", ws or talk)
    app.router.add_get("/schema", tell)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        assert site._server is not None
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", asked  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


def fails(answers: list[Any], kind: type[Exception], words: str, **given: Any) -> None:
    """The step that gets the last answer raises, and the next reset is another session."""

    async def go() -> None:
        async with server([GOOD, *answers], given.pop("schema", SCHEMA)) as (url, _):
            env = RemoteEnv(url, seconds=1.0, **given)
            try:
                await env.reset(seed=1)
                with pytest.raises(kind, match=words):
                    await env.step("x")
                if env._connection.alive:
                    return
                assert (await env.reset(seed=1)).observation == "hello"
            finally:
                await env.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ("no json", EnvError, "no OpenEnv message"),
        ("[]", EnvError, "no OpenEnv message"),
        ("{}", EnvError, "protocol of 0.3"),
        ("[" * 100_000, EnvError, "no OpenEnv message"),
        ({"type": "state", "data": {}}, EnvError, "type 'state'"),
        ({"type": "observation", "data": {}}, EnvError, "not an OpenEnv observation"),
        (step(observation="text"), EnvError, "not an OpenEnv observation"),
        (step(reward="1"), EnvError, "not an OpenEnv observation"),
        (step(done="yes"), EnvError, "not an OpenEnv observation"),
        (step(reward=float("nan")), EnvError, "no OpenEnv message"),
        ('{"type":"observation","data":{"observation":{},"reward":1e999,"done":false}}', EnvError, "out of range"),
        (b"binary", WorkerError, "speaks text"),
        ("hang up", WorkerError, "the connection broke"),
        ("goodbye", WorkerError, "out of memory"),
        ("silence", DeadlineError, "did not answer 'step' in 1 s"),
        ({"type": "error", "data": {"message": "boom", "code": "EXECUTION_ERROR"}}, EnvError, "boom"),
        ({"type": "error", "data": {"message": "full", "code": "CAPACITY_REACHED"}}, WorkerError, "no session for us"),
        ({"type": "error", "data": {"message": ["?"], "errors": [3, {"msg": 4}]}}, EnvError, "4"),
    ],
)
def test_what_is_no_answer_is_a_clear_error(answer: Any, kind: type[Exception], words: str) -> None:
    fails([answer], kind, words)


def test_a_message_of_megabytes_is_not_read() -> None:
    fails([step(observation={"text": "x" * 2_000_000})], WorkerError, "largest message", largest_message=1_000_000)


def test_episodes_map_to_the_contract() -> None:
    answers = [
        GOOD,
        step(reward=True, observation={"text": "a", "admissible_commands": ["b"], "info": {"task_type": "k"}}),
        step(reward=-2, done=True, observation={"text": "end", "truncated": True, "success": True}),
    ]

    async def go() -> None:
        async with server(answers) as (url, asked):
            env = RemoteEnv(url, reset={"level": 2})
            with pytest.raises(EnvError, match="reset"):
                await env.step("x")
            await env.reset(seed=5, options={"fast": True})
            first = await env.step("x")
            assert first[:4] == ("a", 1.0, False, False)
            assert first.info["admissible_commands"] == ["b"]
            assert first.info["task_type"] == "k"
            last = await env.step("y")
            assert last[1:4] == (-2.0, False, True)
            assert last.info["success"]
            assert last.info["score"] == -1.0
            with pytest.raises(EnvError, match="reset"):
                await env.step("z")
            await env.close()
            await env.close()
        assert asked[1]["data"] == {"level": 2, "fast": True, "seed": 5}
        assert [one["data"] for one in asked[2:]] == [{"text": "x"}, {"text": "y"}]

    asyncio.run(go())


def test_hostile_actions_are_answered_here_or_sent_as_they_are() -> None:
    said = ["\x00\x1b[2J", "\ud800", "у\u202eе", "{" * 5000, '{"text": "t"}', ""]

    async def go() -> None:
        async with server([GOOD] * (len(said) + 1)) as (url, asked), RemoteEnv(url) as env:
            await env.reset(seed=5)
            for action in said:
                assert not (await env.step(action)).info["invalid"]
            for nonsense in ("x" * 2_000_000, None, 5, ["a"], {"cat": 1}, {"role": "user"}):
                refused = await env.step(nonsense)  # type: ignore[arg-type]
                assert refused.info["invalid"]
                assert "JSON object with text" in refused.observation
        assert [one["data"]["text"] for one in asked[2:]] == ["\x00\x1b[2J", "?", "у\u202eе", "{" * 5000, "t", ""]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("nonsense", "says nothing of actions"),
        ("[" * 100_000, "says nothing of actions"),
        ({"observation": {}}, "says nothing of actions"),
        ({"action": []}, "no object with properties"),
        ({"action": {"properties": {}, "required": 5}}, "no required fields"),
        ("x" * 5_000_000, "larger than"),
        ({"action": {"title": "CallToolAction", "properties": {}}}, "lists no tools"),
    ],
)
def test_a_server_without_a_schema_of_actions_is_refused(schema: Any, words: str) -> None:
    async def go() -> None:
        async with server([GOOD], schema) as (url, _), RemoteEnv(url) as env:
            with pytest.raises(EnvError, match=words):
                await env.reset(seed=1)

    asyncio.run(go())


def test_redirects_are_not_followed() -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://127.0.0.1:1/ws")

    async def refuse(request: web.Request) -> web.StreamResponse:
        raise web.HTTPUnauthorized

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="a web page")

    async def go() -> None:
        for handler, words in ((elsewhere, "sends elsewhere"), (refuse, TOKEN_VARIABLE), (page, "HTTP 200")):
            async with server([], ws=handler) as (url, _), RemoteEnv(url) as env:
                with pytest.raises(EnvError, match=words):
                    await env.reset(seed=1)

    asyncio.run(go())


def test_nobody_there_wrong_addresses_and_settings() -> None:
    async def go() -> None:
        async with server([]) as (url, _):
            pass
        with pytest.raises(WorkerError, match="cannot reach"):
            await RemoteEnv(url).reset(seed=1)

    asyncio.run(go())
    for wrong in ("ftp://x", "http://", "http://a:b:c", "localhost:8000", "http://h?x=1", "http://h:99999"):
        with pytest.raises(EnvError, match="no address"):
            Connection(wrong, 1.0, 1)
    assert Connection("ws://host:80/a/", 1.0, 1).url == "http://host:80/a"
    with pytest.raises(ConfigError, match="above zero"):
        RemoteEnv(seconds=0)
    for params in ({"url": 5}, {"reset": []}):
        with pytest.raises(DataError, match="OpenEnv task"):
            asyncio.run(RemoteEnv("http://h").reset(task=Task(env="openenv/Remote-v0", name="x", params=params)))


def test_the_token_is_sent_and_the_fields_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    schema = {"action": {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}
    answer = step(observation={"x": "1", "y": "2"})

    async def go() -> None:
        async with server([answer] * 3, schema) as (url, asked):
            async with RemoteEnv(url) as env:
                first = await env.reset(seed=1)
                assert json.loads(first.observation) == {"x": "1", "y": "2"}
                assert (await env.step("hello")).info["invalid"]
            async with RemoteEnv(url, action_field="b", text_field="y") as env:
                assert (await env.reset(seed=1)).observation == "2"
                assert not (await env.step("hello")).info["invalid"]
        assert asked[0] == "Bearer secret"
        assert [one["data"] for one in asked if "step" in str(one)] == [{"b": "hello"}]

    asyncio.run(go())
    with pytest.raises(EnvError, match="no field 'c'"):
        asyncio.run(_reset_with(schema, "c"))


async def _reset_with(schema: Any, field: str) -> None:
    async with server([GOOD], schema) as (url, _), RemoteEnv(url, action_field=field) as env:
        await env.reset(seed=1)


def test_a_cancelled_step_never_leaves_its_answer_to_the_next() -> None:
    async def go() -> None:
        async with server([GOOD, "silence", GOOD]) as (url, _), RemoteEnv(url) as env:
            await env.reset(seed=1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(env.step("x"), 0.2)
            with pytest.raises(WorkerError, match="the session is over"):
                await env.step("y")
            assert (await env.reset(seed=1)).observation == "hello"

    asyncio.run(go())
