"""The runner by itself, as a plain process: what it speaks, what it keeps of output, and which Pythons it runs on."""

from __future__ import annotations

import ast
import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.errors import SandboxError, SandboxPathError
from palaestra.sandboxes import runner
from palaestra.sandboxes.attached import AttachedSandbox
from palaestra.sandboxes.boot import runner_command, runner_parts, runner_program
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Sandbox, Snapshot
from palaestra.sandboxes.link import Link, StreamWire
from palaestra.sandboxes.runner.frames import FRAME
from palaestra.sandboxes.runner.pipes import Stream
from palaestra.sandboxes.spec import SandboxSpec

SOURCES = Path(runner.__file__).parent


class Plain(AttachedSandbox):
    """A runner that nothing confines."""

    async def snapshot(self) -> Snapshot:
        raise NotImplementedError

    async def fork(self, n: int = 1) -> list[Sandbox]:
        raise NotImplementedError

    async def close(self) -> None:
        await self.link.close()


def started(python: str = sys.executable) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(runner_command(python), stdin=theirs, stdout=theirs, start_new_session=True)
    ours.settimeout(20)
    return process, ours


def plainly(work: Path, test: Callable[[Plain], Awaitable[None]], python: str = sys.executable) -> None:
    """Run a test with a runner whose work folder is `work`."""

    async def run() -> None:
        process, ours = started(python)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            async with Plain("plain", SandboxSpec(workdir=str(work)), Link(StreamWire(reader, writer))) as sandbox:
                await sandbox.configure()
                await test(sandbox)
        finally:
            assert await asyncio.to_thread(process.wait, 20) == 0

    asyncio.run(run())


def framed(header: bytes, payload: bytes = b"") -> bytes:
    return FRAME.pack(len(header), len(payload)) + header + payload


def test_all_its_files_are_sent_and_need_python_3_8_and_each_other() -> None:
    assert {*runner_parts(), "__init__"} == {each.stem for each in SOURCES.glob("*.py")}
    for number, part in enumerate(runner_parts()):
        tree = ast.parse((SOURCES / f"{part}.py").read_text(encoding="utf-8"), feature_version=(3, 8))
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= sys.stdlib_module_names
            elif isinstance(node, ast.ImportFrom):
                package, _, name = str(node.module).rpartition(".")
                known = name in runner_parts()[:number] if package == runner.__name__ else not package
                assert known, f"{part} imports {node.module}"
    assert len(" ".join(runner_command()).encode()) < 1000


def test_what_is_compiled_tells_nothing_of_this_machine() -> None:
    assert str(SOURCES.parent).encode() not in runner_program()


def test_it_is_read_as_text_where_it_is_compiled_for_another_python(tmp_path: Path) -> None:
    async def test(sandbox: Plain) -> None:
        assert (await sandbox.exec(Exec(argv=("echo", "here")))).stdout.text == "here\n"

    with pytest.MonkeyPatch.context() as patch:
        other = b"\0\0\0\0" + runner_program()[4:]
        patch.setattr("palaestra.sandboxes.attached.runner_program", lambda: other)
        plainly(tmp_path, test)


def pythons() -> list[str]:
    """Those of this machine."""
    versions = Path(sys.base_prefix).parent
    names = [f"python3.{minor}" for minor in range(8, 15)]
    folders = [f"{folder}/bin" for folder in versions.iterdir()]
    paths = [shutil.which(name, path=folder) for name in names for folder in ["/usr/bin", *folders]]
    found = [path for path in dict.fromkeys(paths) if path]
    return [sys.executable, *found]


def test_it_runs_on_every_python_that_is_here(tmp_path: Path) -> None:
    async def test(sandbox: Plain) -> None:
        result = await sandbox.exec(Exec(shell="cat; echo err >&2; exit 3", stdin=b"in", env={"A": "ä"}))
        assert (result.stdout.text, result.stderr.text, result.exit_code) == ("in", "err\n", 3)
        assert (await sandbox.exec(Exec(argv=("sleep", "30"), timeout=0.2))).ending == "timeout"
        session = await sandbox.session()
        await session.run("A=1")
        assert (await session.run("echo $A")).stdout.text == "1\n"
        await sandbox.write_file("f/g", b"x" * 1_000_000)
        assert await sandbox.read_file("f/g") == b"x" * 1_000_000
        await sandbox.download("f", tmp_path / "got")

    for python in pythons():
        plainly(tmp_path, test, python)
        shutil.rmtree(tmp_path / "got")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        FRAME.pack(1 << 31, 0),
        FRAME.pack(10, 1 << 31),
        framed(b"[]"),
        framed(b"{}"),
        framed(b'{"id": "x", "op": "ping"}'),
        framed(b"[" * 100_000),
        framed(b"\xff\xfe"),
    ],
)
def test_what_is_no_request_ends_it(sent: bytes) -> None:
    process, ours = started()
    with ours:
        ours.sendall(runner_program() + sent)
        assert process.wait(20) == 0


def test_requests_that_it_does_not_know_are_refused(tmp_path: Path) -> None:
    async def test(sandbox: Plain) -> None:
        for header in (
            {"op": "fly"},
            {"op": "__init__"},
            {"op": "exec"},
            {"op": "read", "path": 3, "limit": 1},
            {"op": "run", "shell": 99, "timeout": 1, "output": 1, "flood": 1},
            {"op": "put", "path": ""},
        ):
            with pytest.raises(SandboxPathError):
                await sandbox.link.ask(header)
        await sandbox.link.send({"id": 12345, "op": "data"}, b"for nobody")
        await sandbox.link.send({"id": 12345, "op": "cancel"})
        await sandbox.ping()

    plainly(tmp_path, test)


def test_entries_that_lead_out_are_refused(tmp_path: Path) -> None:
    async def test(sandbox: Plain) -> None:
        for name in ("../x", "a/../../x", "/etc/x", "a//b", "a\0b"):
            exchange = sandbox.link.exchange()
            await sandbox.link.send({"id": exchange.id, "op": "put", "path": "t"})
            await exchange.send({"e": {"t": "f", "p": name, "m": 0o644, "s": 1, "n": 0}}, b"x")
            with pytest.raises(SandboxPathError):
                await sandbox._done(exchange)
        assert not (tmp_path / "x").exists()

    (tmp_path / "work").mkdir()
    plainly(tmp_path / "work", test)


def test_it_ends_with_its_link_and_everything_it_began_is_told_so(tmp_path: Path) -> None:
    async def test(sandbox: Plain) -> None:
        running = asyncio.create_task(sandbox.exec(Exec(shell="exec sleep 3")))
        await asyncio.sleep(0.2)
        await sandbox.link.send({"id": 999, "op": "close"})
        with pytest.raises(SandboxError, match="lost"):
            await running
        with pytest.raises(SandboxError, match="lost"):
            await sandbox.ping()

    plainly(tmp_path, test)


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(0, 60))
def test_head_and_tail_are_those_of_the_whole(parts: list[bytes], cap: int) -> None:
    stream, whole = Stream("stdout", cap), b"".join(parts)
    for part in parts:
        stream.take(part)
    head, tail, dropped = stream.kept()
    assert len(head) + len(tail) + dropped == len(whole)
    assert len(head) + len(tail) <= cap
    assert whole.startswith(head)
    assert whole.endswith(tail)
    if len(whole) <= cap:
        assert (head, dropped) == (whole, 0)
