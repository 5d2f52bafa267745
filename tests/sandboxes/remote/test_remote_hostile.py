"""What clients must not be able to do to a server of sandboxes, and what both sides make of what makes no sense."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sandbox_serving import needs_bubblewrap, resident, serving_sandboxes

from palaestra.errors import ConfigError, DataError
from palaestra.sandboxes.bubblewrap import BubblewrapBackend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.remote import frames
from palaestra.sandboxes.remote.frames import Call, Cancel, Credit, End, Hello, Piece, to_client, to_reply, to_server
from palaestra.sandboxes.requests import Execute, Failed, Fork, Given, Read, Request, Start, Upload, Write
from palaestra.sandboxes.spec import SandboxSpec

aiohttp = pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")

from palaestra.sandboxes.remote import admission, tenant  # noqa: E402
from palaestra.sandboxes.remote.client import RemoteBackend  # noqa: E402
from palaestra.sandboxes.remote.server import SandboxServer, ServerSettings  # noqa: E402

pytestmark = needs_bubblewrap

TOKEN = "a token that is long enough"
SPEC = SandboxSpec()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PALAESTRA_TOKEN", raising=False)


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[SandboxServer, Any]]:
    async with (
        SandboxServer(BubblewrapBackend(), ServerSettings(port=0, **settings)) as server,
        aiohttp.ClientSession() as client,
    ):
        yield server, client


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(limited())


async def connected(client: Any, server: SandboxServer, **settings: Any) -> Any:
    ws = await client.ws_connect(f"{server.url}/connect", **settings)
    assert isinstance(await received(ws), Hello)
    return ws


async def received(ws: Any) -> Any:
    message = await ws.receive(timeout=20)
    return to_client(message.data) if message.type is aiohttp.WSMsgType.BINARY else message


async def say(ws: Any, *said: Any) -> None:
    for frame in said:
        await ws.send_bytes(frame if isinstance(frame, bytes) else msgspec.msgpack.encode(frame))


async def ended(ws: Any) -> Any:
    """The reply of the only call."""
    whole = b""
    while not isinstance(frame := await received(ws), End):
        assert isinstance(frame, Piece | Credit), frame
        whole += frame.data if isinstance(frame, Piece) and frame.kind == "reply" else b""
    return to_reply(whole + frame.data)


NONSENSE: list[Any] = [
    b"",
    b"\xc1",
    b"\xff" * 100,
    b"\x91" * 100_000,
    msgspec.msgpack.encode({"type": "Call"}),
    msgspec.msgpack.encode({"type": "Nothing"}),
    End(1, b""),
    Hello(1, "", 0),
    Call(-1, Start(SPEC), False),
    Call(1, b"[" * 50_000, False),
    Call(1, b'{"type": "Nothing"}', False),
    {"type": "Piece", "id": 1, "kind": "body", "data": b"x" * (frames.PIECE + 1)},
    {"type": "Credit", "id": 1, "size": -1},
    {"type": "Credit", "id": 1, "size": 2**40},
    {"type": "Call", "id": 1, "body": False, "request": {"type": "Write", "sandbox": 1, "path": "", "mode": -1}},
]


@pytest.mark.parametrize("frame", NONSENSE)
def test_nonsense_ends_its_client_only(frame: Any) -> None:
    async def go() -> None:
        async with served() as (server, client), RemoteBackend(server.url) as other:
            good = await other.start(SPEC)
            bad = await connected(client, server)
            await say(bad, frame)
            message = await received(bad)
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == aiohttp.WSCloseCode.POLICY_VIOLATION
            assert (await good.exec(Exec(argv=("true",)))).ok

    run(go)


def test_frames_of_text_or_too_large_end_their_client_only() -> None:
    async def go() -> None:
        async with served() as (server, client):
            text, large = await connected(client, server), await connected(client, server)
            await text.send_str("hello")
            assert (await received(text)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            with suppress(OSError):  # it hangs up before all of it is sent
                await large.send_bytes(bytes(frames.MESSAGE_BYTES + 5000))
            assert (await received(large)).type is not aiohttp.WSMsgType.BINARY
            await (await connected(client, server)).close()

    run(go)


BEYOND: dict[str, list[Any]] = {
    "more than the window": [Call(1, Fork(1, 3), True)] + [Piece(1, "body", bytes(frames.PIECE)) for _ in range(40)],
    "endless empty pieces": [Call(1, Fork(1, 3), True)] + [Piece(1, "body", b"")] * 6000,
    "credit for nothing": [Call(1, Execute(1, Exec(argv=("sleep", "9"))), False), Credit(1, 5)],
    "one id twice": [Call(1, Execute(1, Exec(argv=("sleep", "9"))), False)] * 2,
    "too many calls": [Call(n, Execute(1, Exec(argv=("sleep", "9"))), False) for n in range(1, 1030)],
}


@pytest.mark.parametrize("name", BEYOND)
def test_who_goes_beyond_limits_is_sent_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant, "MOST_CALLS", 20)
    monkeypatch.setattr(admission.Budget, "room", lambda self, size: contextlib.nullcontext())

    async def go() -> None:
        async with served(grace_seconds=0.1) as (server, client):
            ws = await connected(client, server)
            await say(ws, Call(0, Start(SPEC), False))
            reply = await ended(ws)
            assert isinstance(reply, Given)
            said = [_aimed(frame, reply.ones[0].handle) for frame in BEYOND[name]]
            with suppress(aiohttp.ClientError, OSError):
                await say(ws, *said)
            while not isinstance(last := await received(ws), aiohttp.WSMessage):
                pass
            assert last.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            async with asyncio.timeout(20):
                while server._tenants:
                    await asyncio.sleep(0.01)
            assert server.sandboxes == 0

    run(go)


def _aimed(frame: Any, sandbox: int) -> Any:
    if isinstance(frame, Call) and isinstance(frame.request, Execute | Fork):
        return msgspec.structs.replace(frame, request=msgspec.structs.replace(frame.request, sandbox=sandbox))
    return frame


def test_what_does_not_fit_is_a_reply() -> None:
    async def go() -> None:
        async with served() as (server, client):
            ws = await connected(client, server)
            await say(ws, Call(0, Start(SPEC), False))
            one = (await ended(ws)).ones[0].handle
            # Of nobody's sandboxes, of calls that are over, with the wrong pieces: nothing happens to anybody.
            await say(ws, Cancel(77), Credit(77, 1), Piece(77, "body", b"x"))
            for call, pieces in (
                (Call(1, Read(one + 1000, "a", 10), False), []),
                (Call(1, Write(one, "a", 0o644, 5), True), [Piece(1, "body", b"123456", True)]),
                (Call(1, Write(one, "a", 0o644, 5), True), [Piece(1, "body", b"12", True)]),
                (Call(1, Write(one, "a", 0o644, 5), True), [Piece(1, "stdout", b"12345", True)]),
                (Call(1, Write(one, "a", 0o644, 5), False), []),
                (Call(1, Upload(one, "a"), True), [Piece(1, "body", b"no files", True)]),
                (Call(1, Upload(one, "a"), True), [Piece(1, "body", b"\xff" * 60_000, True)]),
                (Call(1, Upload(one, "a"), False), []),
            ):
                await say(ws, call, *pieces)
                reply = await ended(ws)
                assert isinstance(reply, Failed), call
                assert reply.error in ("SandboxError", "SandboxPathError", "DataError")
            await say(ws, Call(1, Execute(one, Exec(argv=("ls",))), False))
            assert (await ended(ws)).result.stdout.text == ""
            await ws.close()

    run(go)


def test_a_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant, "SENDING_SECONDS", 0.5)

    async def go() -> None:
        async with served(grace_seconds=0.1) as (server, client):
            ws = await connected(client, server)
            await say(ws, Call(0, Start(SPEC), False))
            one = (await ended(ws)).ones[0].handle
            transport = ws._conn.transport
            transport.pause_reading()
            for n in range(30):
                await say(ws, Call(n, Execute(one, Exec(shell="head -c 900000 /dev/zero"), 0, True), False))
            async with asyncio.timeout(20):
                while server._tenants:
                    await asyncio.sleep(0.05)
            transport.resume_reading()
            await ws.close()

    run(go)


@pytest.mark.parametrize("headers", [{"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "none"}, {"Host": "evil.com"}])
def test_web_pages_are_refused(headers: dict[str, str]) -> None:
    async def go() -> None:
        async with served() as (server, client):
            assert (await client.get(f"{server.url}/sandboxes", headers=headers)).status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await client.ws_connect(f"{server.url}/connect", headers=headers)

    run(go)


def test_nothing_is_told_without_the_token_or_the_key() -> None:
    async def go() -> None:
        async with served(token=TOKEN) as (server, client):
            assert (await client.get(f"{server.url}/health")).status == 200
            right = {"Authorization": f"Bearer {TOKEN}"}
            for given in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {TOKEN}"}):
                assert (await client.get(f"{server.url}/sandboxes", headers=given)).status == 401
                with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                    await client.ws_connect(f"{server.url}/connect", headers=given)
            assert (await client.get(f"{server.url}/sandboxes", headers=right)).status == 200
            assert (await client.get(f"{server.url}/elsewhere", headers=right)).status == 404
            with pytest.raises(aiohttp.WSServerHandshakeError, match="410"):
                await client.ws_connect(f"{server.url}/connect?key=guessed", headers=right)

    run(go)


def test_other_machines_need_a_token() -> None:
    with pytest.raises(ConfigError, match="PALAESTRA_TOKEN"):
        ServerSettings(host="0.0.0.0")
    with pytest.raises(ConfigError, match="16 characters"):
        ServerSettings(host="::", token="short")
    ServerSettings(host="0.0.0.0", token=TOKEN)


UPGRADE = (
    b"GET /connect HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
ATTACKS = [
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50,
    b"GET /connect HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000,
    b"POST /sandboxes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n" + b"y" * 100_000,
    UPGRADE + b"\x82\xff\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" + b"y" * 100_000,
    UPGRADE + b"\x82\xfe\xff\xff\x00\x00\x00\x00" + b"y" * 100,
    UPGRADE + (b"\x02" + b"\x00\x80\x00\x00\x00\x00" * 20_000),
    UPGRADE + b"\x82\x02\xc1\xc1",
]


def test_hostile_connections_cost_little() -> None:
    with serving_sandboxes("--max-clients", "20") as server, contextlib.ExitStack() as stack:
        host, port = server.url.removeprefix("http://").split(":")
        before = resident(server.process.pid)
        for said in ATTACKS * 4:
            attacker = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            with contextlib.suppress(OSError):
                attacker.sendall(said)

        async def go() -> None:
            async with aiohttp.ClientSession() as client:
                assert (await client.get(f"{server.url}/health")).status == 200

        run(go)
        assert resident(server.process.pid) - before < 64 * 2**20
        assert server.stop() == 0
        assert len(server.said().splitlines()) == 2


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_frame_or_a_data_error(data: bytes) -> None:
    for decode in (to_server, to_client, to_reply):
        with suppress(DataError):
            decode(data)
    with suppress(DataError):
        assert isinstance(frames.plain(data), Request)


@given(st.text(), st.text(), st.lists(st.text()), st.integers(0, 2**40))
def test_any_text_arrives(path: str, script: str, argv: list[str], size: int) -> None:
    odd = script + "\udcff"
    request = Execute(size, Exec(argv=tuple(argv), shell=odd, cwd=path, env={odd: path}), size, True)
    call = Call(1, frames.odd(request), True)
    arrived = to_server(frames.encode(call))
    assert isinstance(arrived, Call)
    assert frames.plain(arrived.request) == request
    plain = Execute(size, Exec(argv=tuple(argv), shell=script, cwd=path), size)
    arrived = to_server(frames.encode(Call(1, plain, False)))
    assert isinstance(arrived, Call)
    assert frames.plain(arrived.request) == plain


def test_memory_is_shared_in_turn() -> None:
    async def go() -> None:
        budget, order, held = admission.Budget(100), [], 0

        async def use(name: int, size: int) -> None:
            nonlocal held
            async with budget.room(size):
                held += min(size, 100)
                assert held <= 100
                order.append(name)
                await asyncio.sleep(0.01)
                held -= min(size, 100)

        tasks = [asyncio.create_task(use(n, size)) for n, size in enumerate([60, 60, 1000, 10, 0, 100, 5])]
        await asyncio.sleep(0.005)
        tasks[5].cancel()
        await asyncio.wait(tasks)
        assert order == [0, 4, 1, 2, 3, 6]
        async with asyncio.timeout(1), budget.room(100):
            pass

    run(go)
