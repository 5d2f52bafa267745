"""The remote back end over a server in the same process, with bubblewrap behind it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.sandbox_serving import needs_bubblewrap

from palaestra.errors import ConfigError, SandboxDaemonError, SandboxError, SandboxPathError
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.bubblewrap import BubblewrapBackend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.spec import Limits, SandboxSpec

aiohttp = pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")

from palaestra.sandboxes.remote import connection as connection_module  # noqa: E402
from palaestra.sandboxes.remote.admission import Allowed  # noqa: E402
from palaestra.sandboxes.remote.client import RemoteBackend  # noqa: E402
from palaestra.sandboxes.remote.server import SandboxServer, ServerSettings  # noqa: E402

pytestmark = needs_bubblewrap

SPEC = SandboxSpec()
TOKEN = "a token that is long enough"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PALAESTRA_TOKEN", raising=False)


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[SandboxServer, RemoteBackend]]:
    async with (
        SandboxServer(BubblewrapBackend(), ServerSettings(port=0, **settings)) as server,
        RemoteBackend(server.url, settings.get("token")) as backend,
    ):
        yield server, backend


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(limited())


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def test_it_is_a_back_end_by_name() -> None:
    backend = open_backend("remote", url="http://127.0.0.1:1")
    assert isinstance(backend, RemoteBackend)
    for url in ("", "127.0.0.1:8643", "ftp://127.0.0.1", "http://"):
        with pytest.raises(ConfigError, match="http://127.0.0.1:8643"):
            RemoteBackend(url)


def test_errors_keep_their_type_and_words() -> None:
    async def go() -> None:
        async with served() as (_, backend):
            sandbox = await backend.start(SPEC)
            with pytest.raises(SandboxPathError, match="nowhere"):
                await sandbox.read_file("nowhere")
            with pytest.raises(SandboxPathError):
                await sandbox.exec(Exec(argv=("no-such-program",)))
            with pytest.raises(ConfigError, match="written to"):
                await backend.start(replace(SPEC, root="writable"))
            await sandbox.close()
            with pytest.raises(SandboxError, match="closed") as caught:
                await sandbox.exec(Exec(argv=("true",)))
            assert type(caught.value) is SandboxError
            await sandbox.close()

    run(go)


def test_much_output_comes_whole_and_in_order() -> None:
    async def go() -> None:
        async with served() as (_, backend):
            sandbox = await backend.start(SPEC)
            came: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
            script = "seq 300000; seq 300000 >&2"
            result = await sandbox.exec(Exec(shell=script, output=1000), lambda c: came[c.stream].extend(c.data))
            whole = b"".join(b"%d\n" % n for n in range(1, 300_001))
            assert bytes(came["stdout"]) == bytes(came["stderr"]) == whole
            assert len(result.stdout.head + result.stdout.tail) + result.stdout.dropped == len(whole)

    run(go)


def test_a_reader_that_fails_ends_the_command() -> None:
    def bad(chunk: object) -> None:
        raise ValueError("no")

    async def go() -> None:
        async with served() as (_, backend):
            sandbox = await backend.start(SPEC)
            with pytest.raises(ValueError, match="no"):
                await sandbox.exec(Exec(shell="echo x; exec sleep 1000"), bad)
            await asyncio.sleep(0.3)
            assert (await sandbox.exec(Exec(shell="pgrep -x sleep"))).exit_code == 1

    run(go)


def test_cancelling_stops_the_command_there() -> None:
    async def go() -> None:
        async with served() as (_, backend):
            sandbox = await backend.start(SPEC)
            for _ in range(3):
                task = asyncio.create_task(sandbox.exec(Exec(shell="touch on; exec sleep 1000")))
                while (await sandbox.exec(Exec(shell="test -e on"))).exit_code:
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert (await sandbox.exec(Exec(shell="rm on; pgrep -x sleep"))).exit_code == 1

    run(go)


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.02, 0.08, 0.3])
def test_what_is_cancelled_leaves_no_sandbox(seconds: float) -> None:
    async def go() -> None:
        async with served() as (server, backend):
            first = await backend.start(SPEC)
            for make in (backend.start(SPEC), first.fork(2), first.snapshot()):
                task = asyncio.ensure_future(make)
                await asyncio.sleep(seconds)
                done = task.done()
                task.cancel()
                await asyncio.wait({task})
                if not done:
                    await until(lambda: server.sandboxes == 1, 10)
                    continue
                for one in [task.result()] if not isinstance(task.result(), list) else task.result():
                    await (one.close() if hasattr(one, "close") else one.delete())

    run(go)


def test_huge_files_are_refused_or_streamed(tmp_path: Path) -> None:
    async def go() -> None:
        async with served(allowed=Allowed(file_bytes=1_000_000)) as (_, backend):
            sandbox = await backend.start(SPEC)
            big = os.urandom(3_000_000)
            with pytest.raises(SandboxPathError, match="upload"):
                await sandbox.write_file("big", big)
            with pytest.raises(SandboxError, match="upload"):
                await sandbox.exec(Exec(shell="cat", stdin=big))
            (tmp_path / "big").write_bytes(big)
            await sandbox.upload(tmp_path / "big", "big")
            with pytest.raises(SandboxPathError, match="1000000"):
                await sandbox.read_file("big")
            await sandbox.download("big", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == big
            with pytest.raises(SandboxPathError):
                await sandbox.download("big", tmp_path / "less", limit=1000)
            assert not (tmp_path / "less").exists()
            with pytest.raises(SandboxError, match="standard input or in a file"):
                await sandbox.exec(Exec(argv=("echo", "x" * 5_000_000)))
            with pytest.raises(SandboxError, match="at most"):
                await sandbox.exec(Exec(argv=("true",), output=2**30))
            assert (await sandbox.exec(Exec(argv=("true",)))).ok

    run(go)


def test_folders_travel_with_modes_links_and_odd_names(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (source / "run.sh").chmod(0o755)
    Path(os.fsdecode(bytes(source) + b"/a\nb\xff")).write_bytes(b"odd")
    (source / "link").symlink_to("/usr/bin/env")
    (source / "near").symlink_to("run.sh")

    async def go() -> None:
        async with served() as (_, backend):
            sandbox = await backend.start(SPEC)
            await sandbox.upload(source, "there")
            assert (
                await sandbox.exec(Exec(shell="there/near; readlink there/link"))
            ).stdout.text == "ran\n/usr/bin/env\n"
            await sandbox.exec(Exec(shell="ln -s ../../../etc/passwd there/out"))
            await sandbox.download("there", tmp_path / "back")

    run(go)
    back = tmp_path / "back"
    assert {os.fsencode(path.name) for path in back.iterdir()} == {b"empty", b"run.sh", b"a\nb\xff", b"near"}
    assert (back / "run.sh").stat().st_mode & 0o777 == 0o755
    assert list((tmp_path / "cache" / "sandboxes").rglob("palaestra-*")) == []


def test_places_limits_images_and_networks_are_the_servers() -> None:
    allowed = Allowed(sandboxes=2, limits=replace(Limits(), memory=2**31), images=("swe-*",))

    async def go() -> None:
        async with served(allowed=allowed) as (server, backend):
            first = await backend.start(SPEC)
            with pytest.raises(SandboxDaemonError, match="--max-sandboxes"):
                await first.fork(2)
            await first.fork(1)
            with pytest.raises(SandboxDaemonError, match="--max-sandboxes"):
                await backend.start(SPEC)
            await first.close()
            assert server.sandboxes == 1
            for spec, words in (
                (replace(SPEC, limits=replace(Limits(), memory=2**40)), "limits.memory"),
                (replace(SPEC, limits=replace(Limits(), seconds=float("nan"))), "limits.seconds"),
                (replace(SPEC, limits=replace(Limits(), lifetime=float("inf"))), "limits.lifetime"),
                (replace(SPEC, image="/"), "no image"),
                (replace(SPEC, network=("127.0.0.1:22",)), "--allow-network"),
            ):
                with pytest.raises(ConfigError, match=words):
                    await backend.start(spec)
            assert server.sandboxes == 1

    run(go)


@pytest.mark.parametrize("given", [None, "wrong", TOKEN[:-1], f"{TOKEN}x", "ü"])
def test_a_wrong_token_is_a_typed_error(given: str | None) -> None:
    async def go() -> None:
        async with served(token=TOKEN) as (server, backend):
            with pytest.raises(SandboxDaemonError, match="refuses the token"):
                await RemoteBackend(server.url, given).start(SPEC)
            assert (await (await backend.start(SPEC)).exec(Exec(argv=("true",)))).ok

    run(go)


def test_clients_see_their_own_sandboxes_only() -> None:
    async def go() -> None:
        async with served(clients=2) as (server, backend), RemoteBackend(server.url) as other:
            mine, theirs = await backend.start(SPEC), await other.start(SPEC)
            await mine.write_file("whose", b"mine")
            with pytest.raises(SandboxPathError):
                await theirs.read_file("whose")
            with pytest.raises(SandboxDaemonError, match="is full"):
                await RemoteBackend(server.url).start(SPEC)
            await other.close()
            assert server.sandboxes == 1
            assert (await mine.exec(Exec(argv=("true",)))).ok

    run(go)


def test_a_lost_connection_is_a_typed_error_and_mended_only_when_asked() -> None:
    async def go() -> None:
        async with served() as (server, backend):
            sandbox = await backend.start(SPEC)
            session = await sandbox.session()
            await session.run("cd /tmp; here=there")
            running = asyncio.create_task(sandbox.exec(Exec(shell="exec sleep 1000")))
            await asyncio.sleep(0.2)
            backend._line._connection._socket.get_extra_info("socket").shutdown(2)  # type: ignore[union-attr]
            with pytest.raises(SandboxDaemonError, match="connection"):
                await running
            with pytest.raises(SandboxDaemonError, match=r"reconnect\(\)"):
                await sandbox.exec(Exec(argv=("true",)))
            await backend.reconnect()
            assert (await session.run("pwd; echo $here")).stdout.text == "/tmp\nthere\n"
            assert (await sandbox.exec(Exec(shell="pgrep -x sleep"))).exit_code == 1
            assert server.sandboxes == 1
            await backend.reconnect()

    run(go)


def test_after_the_grace_the_sandboxes_are_gone() -> None:
    async def go() -> None:
        async with served(grace_seconds=0.2) as (server, backend):
            lost = await backend.start(SPEC)
            backend._line._connection._socket.get_extra_info("socket").shutdown(2)  # type: ignore[union-attr]
            await until(lambda: server.sandboxes == 0)
            await until(lambda: not server._tenants)
            with pytest.raises(SandboxDaemonError, match="away too long|too long"):
                await backend.reconnect()
            fresh = await backend.start(SPEC)
            assert (await fresh.exec(Exec(argv=("true",)))).ok
            with pytest.raises(SandboxDaemonError):
                await lost.exec(Exec(argv=("true",)))
            await lost.close()

    run(go)


def test_a_server_that_stops_is_a_typed_error_and_closes_all() -> None:
    async def go() -> None:
        async with RemoteBackend("http://127.0.0.1:1") as nobody:
            with pytest.raises(SandboxDaemonError, match="palaestra sandboxes serve running"):
                await nobody.start(SPEC)
        server = SandboxServer(BubblewrapBackend(), ServerSettings(port=0))
        await server.__aenter__()
        backend = RemoteBackend(server.url)
        sandbox = await backend.start(SPEC)
        running = asyncio.create_task(sandbox.exec(Exec(shell="exec sleep 1000")))
        await asyncio.sleep(0.1)
        await server.__aexit__(None, None, None)
        with pytest.raises(SandboxDaemonError, match="stopped"):
            await running
        assert server.sandboxes == 0
        await backend.close()
        await backend.close()

    run(go)


def test_many_calls_at_once_share_the_connection() -> None:
    async def go() -> None:
        async with served() as (_, backend):
            sandbox = await backend.start(SPEC)
            stuck = asyncio.create_task(sandbox.exec(Exec(shell="yes"), lambda chunk: asyncio.sleep(1000)))
            results = await asyncio.gather(*(sandbox.exec(Exec(shell=f"sleep 0.05; echo {n}")) for n in range(40)))
            assert [result.stdout.text for result in results] == [f"{n}\n" for n in range(40)]
            assert not stuck.done()
            stuck.cancel()
            await asyncio.wait({stuck})

    run(go)


def test_a_server_that_talks_nonsense_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "OPENING_SECONDS", 5.0)

    async def go(said: bytes) -> None:
        async def handle(request: Any) -> Any:
            socket = aiohttp.web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_bytes(said)
            await socket.receive()
            return socket

        server = aiohttp.web.Server(handle)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(SandboxDaemonError, match="makes no sense|version"):
            await RemoteBackend(f"http://127.0.0.1:{port}").start(SPEC)
        listening.close()
        await server.shutdown(1)

    import aiohttp.web
    import msgspec

    for said in (b"\xc1", b"", b"\x80", msgspec.msgpack.encode({"type": "Hello", "speech": 99, "key": "", "grace": 1})):
        run(lambda said=said: go(said))  # type: ignore[misc]
