"""Recordings of real sandboxes, and what replays them."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from support.sandbox_serving import needs_bubblewrap

from palaestra.errors import ConfigError, DataError, SandboxError
from palaestra.sandboxes.bubblewrap import BubblewrapBackend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Backend
from palaestra.sandboxes.scripted import ScriptedBackend, recording
from palaestra.sandboxes.spec import SandboxSpec

SPEC = SandboxSpec(env={"$text": "no bytes"})

pytestmark = needs_bubblewrap


async def program(backend: Backend, folder: Path) -> list[Any]:
    """Something that uses all of a sandbox; what it sees."""
    seen: list[Any] = []
    async with backend:
        sandbox = await backend.start(SPEC)
        result = await sandbox.exec(
            Exec(shell="cat; echo err >&2; printf '\\377'; exit 3", stdin=b"in"),
            lambda chunk: seen.append((chunk.stream, chunk.data)),
        )
        seen.append(result)
        await sandbox.write_file("a", b"one")
        seen.append(await sandbox.exec(Exec(shell="echo two >> a; mkdir d; cp a d/b; ln -s b d/c")))
        seen.append(await sandbox.read_file("a"))
        session = await sandbox.session()
        seen += [await session.run("x=5; cd d"), await session.run("echo $x; pwd")]
        await session.close()
        await sandbox.upload(folder / "source", "up")
        seen.append(await sandbox.exec(Exec(argv=("ls", "up"))))
        await sandbox.download("d", folder / f"back-{backend.name}")
        first, second = await sandbox.fork(2)
        seen.append(await first.exec(Exec(shell="echo first > who; cat who")))
        seen.append(await second.exec(Exec(shell="cat who || echo nobody")))
        snapshot = await sandbox.snapshot()
        again = await snapshot.start()
        seen.append(await again.exec(Exec(shell="cat a")))
        seen.append((again.id, sandbox.id))
        for failing in (again.read_file("no\udcffne"), again.exec(Exec(argv=("no-such",))), backend.start(ROOT)):
            try:
                await failing
            except (SandboxError, ConfigError) as error:
                seen.append((type(error), str(error)))
    return seen


ROOT = SandboxSpec(root="writable")


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[list[Any], Path]:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("up")
    path = tmp_path / "it.jsonl"
    return asyncio.run(program(recording(BubblewrapBackend(), path), tmp_path)), path


def test_a_program_sees_the_same_without_the_sandboxes(recorded: tuple[list[Any], Path], tmp_path: Path) -> None:
    seen, path = recorded
    os.utime(tmp_path / "source" / "file", (0, 0))
    assert len(seen) > 12
    assert asyncio.run(program(ScriptedBackend(path), tmp_path)) == seen
    (tmp_path / "back-scripted").rename(tmp_path / "back")
    assert asyncio.run(program(ScriptedBackend(path, match="order"), tmp_path)) == seen
    assert (tmp_path / "back-scripted" / "c").read_text() == "onetwo\n"


def test_a_recording_can_be_read_by_people(recorded: tuple[list[Any], Path]) -> None:
    text = recorded[1].read_text(encoding="ascii")
    assert '"script": "echo $x; pwd"' in text
    assert '{"$text": "5\\n/work/d\\n"}' in text


def test_another_program_is_told_what_was_recorded(recorded: tuple[list[Any], Path]) -> None:
    async def go(backend: Backend) -> None:
        async with backend, await backend.start(SPEC) as sandbox:
            with pytest.raises(SandboxError, match=r"ls.*(nearest|next comes)"):
                await sandbox.exec(Exec(argv=("ls", "down")))
            if isinstance(backend, ScriptedBackend):
                await sandbox.write_file("a", b"x")

    asyncio.run(go(ScriptedBackend(recorded[1])))
    with pytest.raises(SandboxError, match="next comes Execute"):
        asyncio.run(go(ScriptedBackend(recorded[1], match="order")))


def test_a_recording_is_never_written_over(recorded: tuple[list[Any], Path]) -> None:
    with pytest.raises(DataError, match="exists already"):
        recording(BubblewrapBackend(), recorded[1])


def test_what_was_cancelled_has_to_be_cancelled_again(tmp_path: Path) -> None:
    async def go(backend: Backend) -> None:
        async with backend, await backend.start(SPEC) as sandbox:
            task = asyncio.create_task(sandbox.exec(Exec(shell="exec sleep 1000")))
            await asyncio.sleep(0.3)
            assert not task.done()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            assert (await sandbox.exec(Exec(shell="pgrep -x sleep"))).exit_code == 1

    asyncio.run(go(recording(BubblewrapBackend(), tmp_path / "it.jsonl")))
    for match in ("content", "order"):
        asyncio.run(go(ScriptedBackend(tmp_path / "it.jsonl", match=match)))  # type: ignore[arg-type]


def test_what_is_too_long_is_said_when_it_is_replayed(tmp_path: Path) -> None:
    async def ask(backend: Backend) -> None:
        async with backend, await backend.start(SPEC) as sandbox:
            await sandbox.exec(Exec(shell="head -c 20000000 /dev/zero"), lambda chunk: None)

    asyncio.run(ask(recording(BubblewrapBackend(), tmp_path / "it.jsonl")))
    with pytest.raises(SandboxError, match="too long to be recorded"):
        asyncio.run(ask(ScriptedBackend(tmp_path / "it.jsonl")))
