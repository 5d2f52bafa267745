"""Server and clients in processes of their own, killed at bad moments."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.sandbox_serving import needs_bubblewrap, resident, serving_sandboxes, until
from support.serving import Served

from palaestra.errors import SandboxDaemonError
from palaestra.sandboxes import reaper
from palaestra.sandboxes.bubblewrap import BubblewrapBackend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.spec import SandboxSpec

pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")

from palaestra.sandboxes.remote.client import RemoteBackend
from palaestra.sandboxes.remote.server import SandboxServer, ServerSettings

pytestmark = needs_bubblewrap

CLIENT = """
import asyncio, sys
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.remote.client import RemoteBackend
from palaestra.sandboxes.remote.server import SandboxServer, ServerSettings
from palaestra.sandboxes.spec import SandboxSpec

async def main():
    backend = RemoteBackend(sys.argv[1])
    one = await backend.start(SandboxSpec())
    await one.fork(2)
    await one.snapshot()
    print("ready", flush=True)
    await one.exec(Exec(shell=sys.argv[2]))

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    return tmp_path / "cache"


def taken(served: Served) -> dict[str, Any]:
    with urllib.request.urlopen(f"{served.url}/sandboxes", timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def below(pid: int) -> list[int]:
    """Processes that a process has begun, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [one for child in map(int, children) for one in (child, *below(child))]


def run(work: Any) -> None:
    async def limited() -> None:
        async with asyncio.timeout(120):
            await work

    asyncio.run(limited())


def test_a_client_that_is_killed_has_its_sandboxes_closed() -> None:
    with serving_sandboxes("--grace", "0.3") as served:
        command = [sys.executable, "-c", CLIENT, served.url, "exec sleep 1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
            assert taken(served) == {"backend": "bubblewrap", "clients": 1, "sandboxes": 3, "most": 64}
            assert below(served.process.pid)
            client.kill()
        until(lambda: taken(served)["clients"] == 0)
        assert taken(served)["sandboxes"] == 0
        until(lambda: below(served.process.pid) == [])
        assert served.stop() == 0
        assert served.said().splitlines()[1:] == ["stopped; every sandbox is closed"]


def test_a_server_that_is_killed_leaves_what_the_reaper_removes(cache: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(50_000_000))

    async def go(served: Served) -> None:
        backend = RemoteBackend(served.url)
        sandbox = await backend.start(SandboxSpec())
        inside = below(served.process.pid)
        running = asyncio.create_task(sandbox.exec(Exec(shell="exec sleep 1000")))
        moving = asyncio.create_task(sandbox.upload(big, "big"))
        while not any(cache.rglob("palaestra-*/it")):
            await asyncio.sleep(0.005)
        served.process.kill()
        for task in (running, moving):
            with pytest.raises(SandboxDaemonError, match="connection"):
                await task
        with pytest.raises(SandboxDaemonError, match="cannot reach"):
            await backend.reconnect()
        with pytest.raises(SandboxDaemonError, match="cannot reach"):
            await backend.start(SandboxSpec())
        await sandbox.close()
        await backend.close()
        assert inside
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))

    with serving_sandboxes() as served:
        run(go(served))
        served.process.wait()
    assert list(cache.rglob("palaestra-*/it"))
    asyncio.run(reaper.reap())
    assert not list(cache.rglob("palaestra-*"))
    assert not [thing for thing in asyncio.run(reaper.survey()).things if thing.state in ("dead", "expired")]


def test_a_slow_reader_does_not_make_the_server_grow() -> None:
    async def go(served: Served) -> None:
        async with RemoteBackend(served.url) as backend:
            sandboxes = await asyncio.gather(*(backend.start(SandboxSpec()) for _ in range(3)))
            await asyncio.gather(*(one.exec(Exec(shell="head -c 1000000 /dev/zero")) for one in sandboxes))
            before, go_on, came = resident(served.process.pid), asyncio.Event(), 0

            async def slow(chunk: Any) -> None:
                nonlocal came
                came += len(chunk.data)
                await go_on.wait()

            size = 30_000_000
            work = [asyncio.create_task(one.exec(Exec(shell=f"head -c {size} /dev/zero"), slow)) for one in sandboxes]
            await asyncio.sleep(1.5)
            assert not any(task.done() for task in work)
            assert resident(served.process.pid) - before < 24 * 2**20
            mine = resident(os.getpid())
            go_on.set()
            await asyncio.gather(*work)
            assert came == 3 * size
            assert resident(served.process.pid) - before < 24 * 2**20
            assert resident(os.getpid()) - mine < 24 * 2**20

    with serving_sandboxes() as served:
        run(go(served))


def test_big_folders_pass_without_being_held(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(24_000_000))

    async def go(served: Served) -> None:
        async with RemoteBackend(served.url) as backend:
            sandbox = await backend.start(SandboxSpec())
            await sandbox.upload(tmp_path / "big", "small")
            before = resident(served.process.pid)
            await sandbox.upload(tmp_path / "big", "big")
            await sandbox.download("big", tmp_path / "back")
            assert resident(served.process.pid) - before < 16 * 2**20

    with serving_sandboxes() as served:
        run(go(served))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_in_order_though_commands_run(number: signal.Signals) -> None:
    with serving_sandboxes() as served:
        command = [sys.executable, "-c", CLIENT, served.url, "trap '' TERM; while :; do sleep 1; done"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
            inside = below(served.process.pid)
            began = time.monotonic()
            assert served.stop(number) == 0
            assert time.monotonic() - began < 15
            assert b"the server was stopped" in client.communicate(timeout=20)[1]
        assert inside
        assert not any(Path(f"/proc/{pid}").exists() for pid in inside)


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "sandboxes" / "remote.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with serving_sandboxes() as served:
        exec(compile(example.replace("http://127.0.0.1:8643", served.url), "remote.md", "exec"), {})
    assert capsys.readouterr().out == "42\n\n"


def test_a_client_that_falls_silent_is_noticed() -> None:
    """It is frozen: its connection stays, and nothing comes over it."""

    async def go() -> None:
        settings = ServerSettings(port=0, heartbeat_seconds=2.0, grace_seconds=0.2)
        async with SandboxServer(BubblewrapBackend(), settings) as server:
            command = [sys.executable, "-c", CLIENT, server.url, "exec sleep 1000"]
            client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            assert client.stdout is not None
            assert await client.stdout.readline() == b"ready\n"
            await asyncio.sleep(3.5)
            assert server.sandboxes == 3  # who answers may stay
            client.send_signal(signal.SIGSTOP)
            while server.sandboxes:
                await asyncio.sleep(0.05)
            client.kill()
            await client.communicate()

    run(go())
