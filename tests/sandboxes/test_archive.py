"""Files as a stream and back: whole, cut anywhere, and of somebody who means harm."""

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palaestra.errors import SandboxPathError
from palaestra.sandboxes.archive import BATCH, PIECE, pack, unpacking


async def packed(source: Path) -> list[bytes]:
    async with pack(source) as pieces:
        return [piece async for piece in pieces]


async def unpack(pieces: Iterable[bytes], target: Path, limit: int = 10**9, **settings: Any) -> None:
    async with unpacking(target, limit, **settings) as take:
        for piece in pieces:
            await take(piece)


def entry(header: Any, payload: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<II", len(text), len(payload)) + text + payload


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "a" / "empty").mkdir(parents=True)
    (tree / "a" / "big").write_bytes(os.urandom(1_000_000))
    (tree / "a" / "big").chmod(0o751)
    Path(os.fsdecode(bytes(tree) + b"/\n\xff")).write_bytes(b"odd")
    (tree / "inside").symlink_to("a/big")
    (tree / "outside").symlink_to("/etc/passwd")
    with (tree / "sparse").open("wb") as sparse:
        sparse.truncate(50_000_000)
    os.mkfifo(tree / "pipe")
    os.utime(tree / "a", (1e9, 1e9))
    return tree


@pytest.mark.parametrize("size", [777, PIECE, 10**9])
def test_what_is_packed_is_unpacked_however_it_is_cut(tree: Path, tmp_path: Path, size: int) -> None:
    pieces = asyncio.run(packed(tree))
    assert max(map(len, pieces)) <= PIECE
    whole = b"".join(pieces)
    assert len(whole) < 2_000_000
    asyncio.run(unpack((whole[at : at + size] for at in range(0, len(whole), size)), tmp_path / "back"))
    back = tmp_path / "back"
    assert {os.fsencode(each.name) for each in back.iterdir()} == {b"a", b"\n\xff", b"inside", b"sparse"}
    assert (back / "inside").read_bytes() == (tree / "a" / "big").read_bytes()
    assert (back / "a" / "big").stat().st_mode & 0o777 == 0o751
    assert (back / "a").stat().st_mtime == 1e9
    assert (back / "sparse").stat().st_size == 50_000_000


def test_all_links_come_along_where_that_is_asked(tree: Path, tmp_path: Path) -> None:
    asyncio.run(unpack(asyncio.run(packed(tree)), tmp_path / "back", all_links=True))
    assert os.readlink(tmp_path / "back" / "outside") == "/etc/passwd"


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    asyncio.run(unpack(asyncio.run(packed(tmp_path / "file")), tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"x"
    with pytest.raises(SandboxPathError, match="exists"):
        asyncio.run(unpack([], tmp_path / "back"))
    with pytest.raises(SandboxPathError, match="absent"):
        asyncio.run(packed(tmp_path / "absent"))


FOLDER = entry({"t": "d", "p": "", "m": 0o755, "n": 0})
HOSTILE = {
    "nothing": b"",
    "an absolute path": FOLDER + entry({"t": "f", "p": "/etc/x", "m": 0o644, "n": 0, "s": 0}),
    "up": FOLDER + entry({"t": "f", "p": "../x", "m": 0o644, "n": 0, "s": 0}),
    "no folder above": FOLDER + entry({"t": "f", "p": "a/x", "m": 0o644, "n": 0, "s": 0}),
    "through a link": FOLDER
    + entry({"t": "l", "p": "a", "m": 0, "n": 0, "to": ".."})
    + entry({"t": "f", "p": "a/x", "m": 0o644, "n": 0, "s": 0}),
    "twice": FOLDER + entry({"t": "f", "p": "a", "m": 0o644, "n": 0, "s": 0}) * 2,
    "too much": FOLDER + entry({"t": "f", "p": "a", "m": 0o644, "n": 0, "s": 2**40}),
    "less than nothing": FOLDER + entry({"t": "f", "p": "a", "m": 0o644, "n": 0, "s": -1}),
    "more than its file": FOLDER + entry({"t": "f", "p": "a", "m": 0o644, "n": 0, "s": 1}, b"xx"),
    "beyond its file": FOLDER
    + entry({"t": "f", "p": "a", "m": 0o644, "n": 0, "s": 1}, b"x")
    + entry({"t": "c", "o": 2**50}, b"x"),
    "no entry": FOLDER + entry([1]),
    "no JSON": FOLDER + struct.pack("<II", 3, 0) + b"{{{",
    "deep": FOLDER + struct.pack("<II", 60_000, 0) + b"[" * 60_000,
    "long": FOLDER + struct.pack("<II", 2**31, 2**31),
    "cut off": FOLDER + b"\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_means_harm_leaves_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(SandboxPathError):
        asyncio.run(unpack([HOSTILE[name]], tmp_path / "back", 10**6))
    assert list(tmp_path.iterdir()) == []


@given(data=st.binary(max_size=400), whole=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_whatever_comes_is_files_or_a_path_error(data: bytes, whole: bool, tmp_path: Path) -> None:
    file = entry({"t": "f", "p": "a", "m": 420, "n": 0, "s": 3}) if whole else b""
    try:
        asyncio.run(unpack([FOLDER, file, data], tmp_path / "x"))
    except SandboxPathError:
        assert not (tmp_path / "x").exists()
    else:
        assert {path.name for path in tmp_path.rglob("*")} <= {"x", "a"}
        (tmp_path / "x" / "a").unlink(missing_ok=True)
        (tmp_path / "x").rmdir()


def test_who_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield FOLDER
        for n in range(BATCH):
            yield entry({"t": "f", "p": str(n), "m": 420, "n": 0, "s": PIECE}, bytes(PIECE))
        await asyncio.sleep(100)

    async def go() -> None:
        async def work() -> None:
            async with unpacking(tmp_path / "x", 10**8) as take:
                async for piece in slowly():
                    await take(piece)

        task = asyncio.create_task(work())
        while not (tmp_path / "x").exists() and not task.done():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(go())
    assert not (tmp_path / "x").exists()
