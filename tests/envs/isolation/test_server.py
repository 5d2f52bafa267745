"""What a server of environments does for its clients, and what it bears from hostile ones."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs import registry
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.isolation.protocol import encode, encode_json
from palaestra.envs.registry import register
from palaestra.errors import ConfigError, DataError, EnvError, UnknownNameError

aiohttp = pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")

from palaestra.envs.isolation import server as server_module  # noqa: E402
from palaestra.envs.isolation import session as session_module  # noqa: E402
from palaestra.envs.isolation.messages import Request, StepCall, decode_request  # noqa: E402
from palaestra.envs.isolation.server import EnvServer, ServerSettings  # noqa: E402
from palaestra.serving import door  # noqa: E402

TOKEN = "a token that is long enough"
ALIVE: list["Echo"] = []


class Echo(Env[str, str]):
    """Says what it is told, and knows some commands."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.said: list[str] = []
        ALIVE.append(self)

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        self.said = []
        return Reset(f"{self.prefix}{seed}", {})

    async def step(self, action: str) -> Step[str]:
        if action == "hang":
            await asyncio.Event().wait()
        if action == "exit":
            raise SystemExit(0)
        if action == "bare":
            raise BaseException("bare")
        if action == "cancel":
            raise asyncio.CancelledError
        if action == "long":
            return Step("x" * 20_000_000, 0.0, False, False, {})
        self.said.append(action)
        return Step(" ".join(self.said), 1.0, False, False, {})

    async def close(self) -> None:
        if self in ALIVE:
            ALIVE.remove(self)
            if "exit at the end" in self.said:
                raise SystemExit(0)


@pytest.fixture(autouse=True)
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    register("test/Echo-v0", Echo, placement=Placement(deadlines=Deadlines(step=0.3)))
    register("test/Echo-v1", Echo, kwargs={"prefix": "seed "}, max_episode_steps=3)
    register("test/Hidden-v0", Echo)
    ALIVE.clear()
    yield
    assert ALIVE == []


IDS = ["test/Echo-v0", "test/Echo-v1"]


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[EnvServer, "aiohttp.ClientSession"]]:
    async with EnvServer(IDS, ServerSettings(port=0, **settings)) as server, aiohttp.ClientSession() as client:
        yield server, client


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(limited())


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def ask(socket: Any, **request: Any) -> dict[str, Any]:
    """A request as JSON, and its answer."""
    await socket.send_str(json.dumps(request))
    answer = await socket.receive()
    assert answer.type is aiohttp.WSMsgType.TEXT, answer
    decoded: dict[str, Any] = json.loads(answer.data)
    return decoded


async def opened(client: Any, server: EnvServer, id: str = "test/Echo-v0") -> Any:
    socket = await client.ws_connect(f"{server.url}/session")
    assert (await ask(socket, type="Open", id=id))["type"] == "Made"
    return socket


def test_any_language_can_speak_json() -> None:
    async def go() -> None:
        async with serving() as (server, client), client.ws_connect(f"{server.url}/session") as socket:
            assert await ask(socket, type="Open", id="test/Echo") == {"type": "Made", "capabilities": []}
            first = await ask(socket, type="ResetCall", seed=7)
            assert first == {"type": "ResetDone", "observation": "seed 7", "info": {}, "tools": None}
            step = await ask(socket, type="StepCall", action="ü")
            assert (step["observation"], step["reward"], step["truncated"]) == ("ü", 1.0, False)
            assert (await ask(socket, type="Ask", method="oracle"))["type"] == "Failed"
            assert await ask(socket, type="Ask", method="close") == {"type": "Value", "value": None}

    run(go)


def test_health_and_environments_are_listed() -> None:
    async def go() -> None:
        async with serving() as (server, client):
            assert await (await client.get(f"{server.url}/health")).json() == {"status": "ok"}
            listed = await (await client.get(f"{server.url}/envs")).json()
            assert [one["id"] for one in listed] == IDS
            assert listed[1]["max_episode_steps"] == 3
            assert not {"entry_point", "kwargs", "placement", "wrappers"} & set(listed[0])
            assert (await client.get(f"{server.url}/elsewhere")).status == 404
            assert (await client.post(f"{server.url}/envs")).status == 404
            assert (await client.get(f"{server.url}/session")).status == 400

    run(go)


def test_what_is_not_served_is_refused_with_the_nearest() -> None:
    async def go() -> None:
        async with serving() as (server, client), client.ws_connect(f"{server.url}/session") as socket:
            for id in ("test/Ecko-v0", "test/Hidden-v0", "os:system", ""):
                answer = await ask(socket, type="Open", id=id)
                assert (answer["type"], answer["error"]) == ("Failed", "UnknownNameError")
                assert "Hidden-v0'?" not in answer["message"]
            assert "'test/Echo-v0'" in (await ask(socket, type="Open", id="test/Ecko-v0"))["message"]
            assert (await ask(socket, type="Open", id="test/Echo-v0"))["type"] == "Made"

    run(go)


def test_a_client_cannot_have_code_loaded() -> None:
    async def go() -> None:
        spec = {"id": "test/Echo-v0", "entry_point": "os:system", "kwargs": {"command": "true"}}
        async with (
            serving(allow_arguments=True) as (server, client),
            client.ws_connect(f"{server.url}/session") as socket,
        ):
            assert (await ask(socket, type="Make", spec=spec))["error"] == "DataError"
            assert (await ask(socket, type="Open", **spec))["message"].startswith("cannot make 'test/Echo-v0'")
            # make's own arguments are none of an environment's
            evil = {"placement": {"kind": "interpreter", "python": "/bin/true"}, "id": "os:system"}
            answer = await ask(socket, type="Open", id="test/Echo-v0", kwargs=evil)
            assert "unexpected keyword argument" in answer["message"]

    run(go)


def test_arguments_are_the_servers_unless_it_allows_others() -> None:
    async def go() -> None:
        async with serving() as (server, client), client.ws_connect(f"{server.url}/session") as socket:
            answer = await ask(socket, type="Open", id="test/Echo-v1", kwargs={"prefix": "mine "})
            assert "--allow-arguments" in answer["message"]
            same = await ask(socket, type="Open", id="test/Echo-v1", kwargs={"prefix": "seed "}, max_episode_steps=1)
            assert same["type"] == "Made"
            await ask(socket, type="ResetCall", seed=0)
            assert (await ask(socket, type="StepCall", action="a"))["truncated"]
            assert (await ask(socket, type="Open", id="test/Echo-v1", max_episode_steps=0))["error"] == "DataError"
        async with (
            serving(allow_arguments=True) as (server, client),
            client.ws_connect(f"{server.url}/session") as socket,
        ):
            await ask(socket, type="Open", id="test/Echo-v1", kwargs={"prefix": "mine "})
            assert (await ask(socket, type="ResetCall", seed=0))["observation"] == "mine 0"

    run(go)


GARBAGE: list[bytes | str] = ["", "{", "[]", "null", '{"type": "Open"}', '{"type": "Nothing"}', "[" * 100_000]
GARBAGE += ['{"type": "Fork", "n": -1}', b"", b"\xc1", b"\xff" * 100, b"\x91" * 100_000, encode({"type": "StepCall"})]


@pytest.mark.parametrize("frame", GARBAGE)
def test_garbage_is_answered_and_the_session_goes_on(frame: bytes | str) -> None:
    async def go() -> None:
        async with serving() as (server, client), client.ws_connect(f"{server.url}/session") as socket:
            await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
            answer = await socket.receive()
            assert answer.type is (aiohttp.WSMsgType.TEXT if isinstance(frame, str) else aiohttp.WSMsgType.BINARY)
            assert "DataError" in str(answer.data)
            assert (await ask(socket, type="Open", id="test/Echo-v0"))["type"] == "Made"

    run(go)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_comes_is_a_request_or_a_data_error(frame: bytes | str) -> None:
    with suppress(DataError):
        assert isinstance(decode_request(frame), Request)


@given(
    st.recursive(st.none() | st.integers(-(2**63), 2**63) | st.text(), lambda some: st.lists(some) | st.tuples(some))
)
def test_both_spellings_say_the_same(action: Any) -> None:
    call = StepCall(action)
    assert decode_request(encode(call)) == decode_request(encode_json(call))


def test_a_frame_that_is_too_large_ends_its_session_only() -> None:
    async def go() -> None:
        async with serving(message_bytes=1000) as (server, client):
            good, bad = await opened(client, server), await opened(client, server)
            await bad.send_str(json.dumps({"type": "StepCall", "action": "x" * 2000}))
            assert (await bad.receive()).data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            assert (await ask(good, type="ResetCall"))["type"] == "ResetDone"
            await until(lambda: server.sessions == 1)
            await good.close()

    run(go)


@pytest.mark.parametrize("given", [None, "", "wrong", f"{TOKEN} ", TOKEN[:-1], "ü"])
def test_a_token_is_asked_for(given: str | None) -> None:
    headers = {} if given is None else {"Authorization": f"Bearer {given}"}

    async def go() -> None:
        async with serving(token=TOKEN) as (server, client):
            assert (await client.get(f"{server.url}/health")).status == 200
            if given != f"{TOKEN} ":  # white space around a header means nothing
                assert (await client.get(f"{server.url}/envs", headers=headers)).status == 401
                with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                    await client.ws_connect(f"{server.url}/session", headers=headers)
            right = {"Authorization": f"Bearer {TOKEN}"}
            assert (await client.get(f"{server.url}/envs", headers=right)).status == 200
            await (await client.ws_connect(f"{server.url}/session", headers=right)).close()

    run(go)


@pytest.mark.parametrize("headers", [{"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "none"}, {"Host": "evil.com"}])
def test_web_pages_are_refused(headers: dict[str, str]) -> None:
    async def go() -> None:
        async with serving() as (server, client):
            for path in ("health", "envs"):
                assert (await client.get(f"{server.url}/{path}", headers=headers)).status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await client.ws_connect(f"{server.url}/session", headers=headers)

    run(go)


def test_sessions_are_limited() -> None:
    async def go() -> None:
        async with serving(sessions=2) as (server, client):
            first, second = await opened(client, server), await opened(client, server)
            response = await client.get(f"{server.url}/session", headers={"Upgrade": "websocket"})
            assert (response.status, await response.text()) == (503, "all 2 sessions are taken")
            await first.close()
            await until(lambda: server.sessions == 1)
            third = await opened(client, server)
            await second.close()
            await third.close()

    run(go)


def test_forks_are_fetched_once_by_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with serving(sessions=3) as (server, client):
            socket = await opened(client, server)
            assert (await ask(socket, type="Fork", n=1))["type"] == "Failed"  # no episode yet
            await ask(socket, type="ResetCall", seed=0)
            await ask(socket, type="StepCall", action="a")
            full = await ask(socket, type="Fork", n=3)
            assert "no place for 3 more: 1 of 3" in full["message"]
            keys = (await ask(socket, type="Fork", n=2))["keys"]
            assert server.sessions == 3
            forks = [await client.ws_connect(f"{server.url}/session?key={key}") for key in keys]
            assert (await ask(forks[0], type="StepCall", action="b"))["observation"] == "a b"
            assert (await ask(forks[1], type="StepCall", action="c"))["observation"] == "a c"
            assert (await ask(socket, type="StepCall", action="d"))["observation"] == "a d"
            for key in (keys[0], "guessed"):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="410"):
                    await client.ws_connect(f"{server.url}/session?key={key}")
            for one in (*forks, socket):
                await one.close()
            await until(lambda: server.sessions == 0)

    run(go)


def test_forks_outlive_their_session_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "ORPHAN_SECONDS", 0.1)

    async def go() -> None:
        async with serving(sessions=6) as (server, client):
            socket = await opened(client, server)
            await ask(socket, type="ResetCall", seed=0)
            keys = (await ask(socket, type="Fork", n=5))["keys"]
            await asyncio.sleep(0.3)
            assert server.sessions == 6
            claimed = await client.ws_connect(f"{server.url}/session?key={keys[0]}")
            await socket.close()
            await until(lambda: server.sessions == 1, seconds=5)
            assert (await ask(claimed, type="StepCall", action="b"))["observation"] == "b"
            await claimed.close()

    run(go)


@pytest.mark.parametrize("name", ["[::1", "[evil", "[]"])
def test_a_host_that_makes_no_sense_is_a_bad_request(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with serving() as (server, client):
            status = (await client.get(f"{server.url}/envs", headers={"Host": name})).status
            assert status in (400, 403)
            assert status == 400 or name == "[]"

    run(go)
    assert not caplog.records


def test_forks_that_nobody_fetches_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "OFFER_SECONDS", 0.1)

    async def go() -> None:
        async with serving() as (server, client):
            socket = await opened(client, server)
            await ask(socket, type="ResetCall", seed=0)
            assert len((await ask(socket, type="Fork", n=5))["keys"]) == 5
            await until(lambda: server.sessions == 1)
            assert len(ALIVE) == 1
            await socket.close()

    run(go)


def test_a_client_that_vanishes_in_a_step_leaves_nothing() -> None:
    register("test/Echo-v0", Echo, override=True)  # without the short deadline

    async def go() -> None:
        async with serving() as (server, client):
            socket = await opened(client, server)
            await ask(socket, type="ResetCall")
            await socket.send_str('{"type": "StepCall", "action": "hang"}')
            await asyncio.sleep(0.05)
            socket.get_extra_info("socket").shutdown(2)
            await until(lambda: server.sessions == 0 and not ALIVE)
            await socket.close()

    run(go)


def test_a_deadline_holds_on_the_server_too() -> None:
    async def go() -> None:
        async with serving() as (server, client):
            socket = await opened(client, server)
            await ask(socket, type="ResetCall")
            answer = await ask(socket, type="StepCall", action="hang")
            assert (answer["error"], ALIVE) == ("DeadlineError", [])
            assert "closed" in (await ask(socket, type="StepCall", action="a"))["message"]
            assert (await ask(socket, type="Open", id="test/Echo-v0"))["type"] == "Made"
            await socket.close()

    run(go)


ENDS = [("exit", "SystemExit"), ("cancel", "CancelledError"), ("bare", "BaseException")]


@pytest.mark.parametrize(("action", "error"), ENDS)
def test_no_environment_ends_the_server(action: str, error: str) -> None:
    async def go() -> None:
        async with serving() as (server, client):
            socket = await opened(client, server)
            await ask(socket, type="ResetCall")
            assert (await ask(socket, type="StepCall", action=action))["error"] == error
            assert (await ask(socket, type="ResetCall"))["type"] == "ResetDone"
            await ask(socket, type="StepCall", action="exit at the end")
            await ask(socket, type="Fork", n=1)
            await socket.close()
            await until(lambda: server.sessions == 1)  # the fork

    run(go)


def test_two_requests_at_once_are_refused() -> None:
    async def go() -> None:
        async with serving() as (server, client):
            socket = await opened(client, server)
            await ask(socket, type="ResetCall")
            await socket.send_str('{"type": "StepCall", "action": "hang"}')
            await socket.send_str('{"type": "StepCall", "action": "a"}')
            message = await socket.receive()
            assert "one request at a time" in message.extra
            await until(lambda: server.sessions == 0)

    run(go)


@pytest.mark.parametrize("opens", [True, False])
def test_a_silent_client_is_sent_away(opens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "OPENING_SECONDS", 0.2 if not opens else 30.0)

    async def go() -> None:
        async with serving(idle_seconds=0.2 if opens else 600.0) as (server, client):
            socket = await client.ws_connect(f"{server.url}/session")
            if opens:
                await ask(socket, type="Open", id="test/Echo-v0")
            message = await socket.receive()
            assert "nothing was asked for 0.2 s" in message.extra
            await until(lambda: server.sessions == 0)

    run(go)


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SENDING_SECONDS", 0.3)

    async def go() -> None:
        async with serving() as (server, client):
            socket = await opened(client, server)
            await ask(socket, type="ResetCall")
            transport = socket._conn.transport
            transport.pause_reading()
            await socket.send_str('{"type": "StepCall", "action": "long"}')
            await until(lambda: server.sessions == 0 and not ALIVE)
            transport.resume_reading()
            await socket.close()

    run(go)


@pytest.mark.parametrize(
    "said", [b"", b"GET /session HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"\x16\x03\x01\x00" * 20]
)
def test_a_connection_that_says_nothing_sensible_ends(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEADER_SECONDS", 0.3)

    async def go() -> None:
        async with serving() as (server, _):
            reader, writer = await asyncio.open_connection(*_address(server))
            writer.write(said)
            while not reader.at_eof():
                writer.write(said[-1:])  # a little more, now and then
                try:
                    async with asyncio.timeout(0.1):
                        await reader.read(1000)
                except TimeoutError:
                    continue
                except OSError:
                    break
            writer.close()
            assert server.sessions == 0

    run(go)


def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SPARE_CONNECTIONS", 3)

    async def go() -> None:
        async with serving(sessions=1) as (server, client):
            waiting = [await asyncio.open_connection(*_address(server)) for _ in range(4)]
            await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_connection(*_address(server))
            with suppress(ConnectionError):
                assert await reader.read() == b""  # hung up, one way or the other
            for _, one in [*waiting, (reader, writer)]:
                one.close()
            await asyncio.sleep(0.05)
            assert (await client.get(f"{server.url}/health")).status == 200

    run(go)


def _address(server: EnvServer) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def test_the_end_of_the_server_closes_everything() -> None:
    async def go() -> None:
        async with aiohttp.ClientSession() as client:
            async with EnvServer(IDS, ServerSettings(port=0)) as server:
                sockets = [await opened(client, server) for _ in range(3)]
                await ask(sockets[0], type="ResetCall")
                await ask(sockets[0], type="Fork", n=2)
                await sockets[1].send_str('{"type": "ResetCall"}')
                assert len(ALIVE) == 5
                listening = [asyncio.create_task(_last_words(socket)) for socket in sockets]
            assert ALIVE == []
            assert set(await asyncio.gather(*listening)) == {"the server was stopped"}

    run(go)


async def _last_words(socket: Any) -> str:
    while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
        pass
    return str(message.extra)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
@pytest.mark.parametrize("token", [None, "", "short"])
def test_an_open_address_needs_a_good_token(host: str, token: str | None) -> None:
    with pytest.raises(ConfigError, match="PALAESTRA_TOKEN"):
        ServerSettings(host=host, token=token)
    ServerSettings(host=host, token=TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    ServerSettings(host=host)


def test_what_cannot_be_served_is_named() -> None:
    register("test/Far-v0", Echo, placement=Placement(kind="remote", url="http://127.0.0.1:1"))
    with pytest.raises(UnknownNameError, match="test/Echo-v0"):
        EnvServer(["test/Ecko-v0"])
    with pytest.raises(EnvError, match="runs on another server"):
        EnvServer(["test/Far-v0"])
    everything = EnvServer().specs
    assert "test/Far-v0" not in everything
    assert "test/Hidden-v0" in everything


def test_an_address_in_use_is_named() -> None:
    async def go() -> None:
        async with serving() as (server, _):
            with pytest.raises(EnvError, match="cannot listen on 127.0.0.1"):
                async with EnvServer(IDS, ServerSettings(port=_address(server)[1])):
                    pass

    run(go)
