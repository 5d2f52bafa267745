"""Scripted sandboxes: replies from code, files in memory, and what is said where nothing is written down."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from palaestra.errors import DataError, SandboxError, SandboxImageError, SandboxPathError
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Sandbox
from palaestra.sandboxes.scripted import ScriptedBackend, reply
from palaestra.sandboxes.spec import Limits, SandboxSpec
from palaestra.sandboxes.tree import Tree

SPEC = SandboxSpec()


def play(
    backend: ScriptedBackend, work: Callable[[Sandbox], Coroutine[Any, Any, None]], spec: SandboxSpec = SPEC
) -> None:
    async def go() -> None:
        async with backend, await backend.start(spec) as sandbox:
            await work(sandbox)

    asyncio.run(go())


def test_it_is_a_back_end_by_name() -> None:
    assert isinstance(open_backend("scripted", replies=[]), ScriptedBackend)


def test_commands_have_the_replies_of_the_script() -> None:
    exact = Exec(argv=("ls", "-l"), cwd="src", stdin=b"x")
    backend = ScriptedBackend(
        [
            reply("pytest -q", "1 failed", "warned", 1),
            reply(exact, b"\xff"),
            reply("rm -rf /", error=SandboxError("lost")),
        ]
    )
    heard: list[tuple[str, bytes]] = []

    async def go(sandbox: Sandbox) -> None:
        command = Exec(shell="pytest -q", cwd="src", timeout=3)
        result = await sandbox.exec(command, lambda chunk: heard.append((chunk.stream, chunk.data)))
        assert (result.exit_code, result.stdout.text, result.stderr.text, result.ok) == (1, "1 failed", "warned", False)
        assert heard == [("stdout", b"1 failed"), ("stderr", b"warned")]
        session = await sandbox.session()
        assert (await session.run("pytest -q")).exit_code == 1
        assert (await sandbox.exec(exact)).stdout.head == b"\xff"
        with pytest.raises(SandboxError, match="lost"):
            await sandbox.exec(Exec(shell="rm -rf /"))

    play(backend, go)


def test_what_nobody_wrote_down_is_an_error_with_the_nearest() -> None:
    async def go(sandbox: Sandbox) -> None:
        with pytest.raises(SandboxError, match=r"pytest -x.*nearest.*pytest -q"):
            await sandbox.exec(Exec(shell="pytest -x"))
        with pytest.raises(SandboxError, match=r"\bls\b.*nearest.*src"):
            await sandbox.exec(Exec(argv=("ls",)))
        with pytest.raises(SandboxError, match="5 bytes"):
            await sandbox.exec(Exec(argv=("ls", "src"), stdin=b"input"))
        with pytest.raises(SandboxError, match="pytest -vv"):
            await (await sandbox.session()).run("pytest -vv")

    play(ScriptedBackend([reply("pytest -q"), reply(Exec(argv=("ls", "src")))]), go)

    async def nothing(sandbox: Sandbox) -> None:
        with pytest.raises(SandboxError, match="nothing like it"):
            await sandbox.exec(Exec(shell="ls"))

    play(ScriptedBackend(), nothing)


def test_equal_requests_have_their_replies_in_order_and_the_last_for_good() -> None:
    async def go(sandbox: Sandbox) -> None:
        said = [(await sandbox.exec(Exec(shell="status"))).stdout.text for _ in range(4)]
        assert said == ["one", "two", "two", "two"]

    play(ScriptedBackend([reply("status", "one"), reply("other"), reply("status", "two")]), go)


def test_in_order_nothing_else_may_be_asked() -> None:
    async def go(sandbox: Sandbox) -> None:
        await sandbox.write_file("free", b"")
        assert (await sandbox.exec(Exec(shell="a"))).ok
        with pytest.raises(SandboxError, match=r'"shell": "c".*next comes.*"shell": "b"'):
            await sandbox.exec(Exec(shell="c"))
        assert (await sandbox.exec(Exec(shell="b"))).ok
        with pytest.raises(SandboxError, match="nothing more does"):
            await sandbox.exec(Exec(shell="b"))

    play(ScriptedBackend([reply("a"), reply("b")], match="order"), go)


def test_files_are_in_memory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "run").write_text("hi")
    (source / "sub" / "run").chmod(0o755)
    (source / "link").symlink_to("sub/run")
    (source / "out").symlink_to("/etc/passwd")
    backend = ScriptedBackend([reply("make", files={"built/a.o": b"\0"})], files={"README": "read me"})

    async def go(sandbox: Sandbox) -> None:
        assert await sandbox.read_file("README") == await sandbox.read_file("/work/./x/../README") == b"read me"
        await sandbox.upload(source, "src")
        assert await sandbox.read_file("src/link") == b"hi"
        await sandbox.exec(Exec(shell="make"))
        assert await sandbox.read_file("built/a.o") == b"\0"
        snapshot = await sandbox.snapshot()
        (fork,) = await sandbox.fork()
        await sandbox.write_file("README", b"changed")
        assert await fork.read_file("README") == await (await snapshot.start()).read_file("README") == b"read me"
        await snapshot.delete()
        with pytest.raises(SandboxError, match="snapshot is closed"):
            await snapshot.start()
        await sandbox.download("src", tmp_path / "back")
        for path, words in (("src", "directory"), ("no", "No such"), ("README/x", "No such"), ("", "no path")):
            with pytest.raises(SandboxPathError, match=words):
                await sandbox.read_file(path)
        with pytest.raises(SandboxPathError, match="more than 3"):
            await sandbox.read_file("README", limit=3)
        with pytest.raises(SandboxPathError, match="Not a directory"):
            await sandbox.write_file("README/x", b"")
        with pytest.raises(SandboxPathError, match="directory"):
            await sandbox.write_file("src", b"")
        with pytest.raises(SandboxPathError, match="No space"):
            await sandbox.write_file("big", b"x" * 2000)
        with pytest.raises(SandboxPathError, match="exists"):
            await sandbox.download("src", tmp_path / "back")
        await sandbox.close()
        with pytest.raises(SandboxError, match="closed"):
            await sandbox.read_file("README")

    play(backend, go, replace(SPEC, limits=Limits(disk=1000)))
    assert (tmp_path / "back" / "link").read_text() == "hi"
    assert (tmp_path / "back" / "sub" / "run").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "back" / "out").is_symlink()


def test_links_in_a_circle_end() -> None:
    tree = Tree(SPEC)
    from palaestra.sandboxes.tree import Link

    tree.write("a", Link("b"))
    tree.write("b", Link("a"))
    with pytest.raises(SandboxPathError, match="symbolic links"):
        tree.read("a/x", 10)


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_written_is_read_back_or_a_path_error(first: str, second: str) -> None:
    from palaestra.sandboxes.tree import File

    tree = Tree(SPEC)
    for path in (first, second):
        try:
            tree.write(path, File(path.encode("utf-8", "surrogatepass")))
        except SandboxPathError:
            continue
        assert tree.read(path, 1000) == path.encode("utf-8", "surrogatepass")


def test_errors_of_every_kind_can_be_scripted() -> None:
    async def go(sandbox: Sandbox) -> None:
        for error in (SandboxImageError("a"), SandboxPathError("a"), SandboxError("a")):
            with pytest.raises(type(error), match="a"):
                await sandbox.exec(Exec(shell=type(error).__name__))

    errors = (SandboxImageError("a"), SandboxPathError("a"), SandboxError("a"))
    play(ScriptedBackend([reply(type(error).__name__, error=error) for error in errors]), go)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"recording": 9}', b"\xff", b'{"recording": 1}\n{"a": 1}', b"[" * 99_999]
)
def test_a_file_that_is_no_recording_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="recording"):
        ScriptedBackend(tmp_path / "file")
    with pytest.raises(DataError, match="recording"):
        ScriptedBackend(str(tmp_path / "absent"))


def test_the_example_of_the_documentation_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "sandboxes" / "scripted.md").read_text(encoding="utf-8")
    exec(compile(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], "scripted.md", "exec"), {})
    assert capsys.readouterr().out == re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]
