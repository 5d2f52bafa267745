"""Trees that come from a sandbox: whatever they say, nothing is written outside of their target."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.errors import SandboxPathError
from palaestra.sandboxes.transfer import Files, entries

ROOT = {"t": "d", "p": "", "m": 0o755, "n": 0}


def file(name: str, size: int = 1, **more: Any) -> dict[str, Any]:
    return {"t": "f", "p": name, "m": 0o644, "s": size, "n": 0, **more}


def _take(files: Files, sent: list[tuple[Any, bytes]]) -> None:
    for entry, payload in sent:
        files.take(entry, payload)
    files.finish()


@pytest.mark.parametrize(
    "sent",
    [
        [(None, b"")],
        [({}, b"")],
        [(file("a"), b"x")],
        [(ROOT, b""), (file("../a"), b"x")],
        [(ROOT, b""), (file("/a"), b"x")],
        [(ROOT, b""), (file("a/../b"), b"x")],
        [(ROOT, b""), (file("a/b"), b"x")],
        [(ROOT, b""), (file("a"), b"x"), (file("a/b"), b"x")],
        [(ROOT, b""), (file("a"), b"x"), (file("a"), b"x")],
        [(ROOT, b""), (file("a", 1), b"xyz")],
        [(ROOT, b""), (file("a", -1), b"")],
        [(ROOT, b""), (file("a", 1 << 70), b"")],
        [(ROOT, b""), (file("a", "x"), b"")],  # type: ignore[arg-type]
        [(ROOT, b""), (file("a"), b"x"), ({"t": "c", "o": 100}, b"x")],
        [(ROOT, b""), (file("a"), b"x"), ({"t": "c", "o": -1}, b"x")],
        [(ROOT, b""), ({"t": "c", "o": 0}, b"x")],
        [(ROOT, b""), ({"t": "l", "p": "l", "to": "."}, b""), (file("l/a"), b"x")],
        [(ROOT, b""), (file("a\0b"), b"x")],
        [(ROOT, b""), (file("x" * 300), b"x")],
        [(ROOT, b""), (file("\ud800"), b"x")],
        [(file("", 200), b"x" * 200)] * 2,
    ],
)
def test_trees_that_are_none(sent: list[tuple[Any, bytes]], tmp_path: Path) -> None:
    files = Files(tmp_path / "in" / "t", 10_000)
    (tmp_path / "in").mkdir()
    with pytest.raises(SandboxPathError):
        _take(files, sent)
    files.discard()
    assert [each.name for each in tmp_path.rglob("*")] == ["in"]


def test_limits_count_holes_and_empty_files(tmp_path: Path) -> None:
    for sent in ([file(f"{n}", 0) for n in range(100)], [file("a", 20_000)]):
        files = Files(tmp_path / "t", 10_000)
        files.take(ROOT, b"")
        with pytest.raises(SandboxPathError, match="more than 10000"):
            _take(files, [(entry, b"") for entry in sent])
        files.discard()
    assert not list(tmp_path.iterdir())


NAMES = ["a", "b", "c"]
TARGETS = st.lists(st.sampled_from([*NAMES, "..", ".", "", "d"]), max_size=5).map("/".join)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*NAMES, "d/a", "d/b", "d/e/a"]), TARGETS, max_size=6))
def test_links_never_lead_out(tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]) -> None:
    outside = tmp_path_factory.mktemp("links")
    for name in (*NAMES, "d", "x/a", "x/b", "x/c", "x/d/a"):
        (outside / name).mkdir(parents=True)
    target = outside / "x" / "t"
    files = Files(target, 1 << 20)
    for name in ("", "d", "d/e"):
        files.take({**ROOT, "p": name}, b"")
    for name, to in links.items():
        files.take({"t": "l", "p": name, "to": to}, b"")
    files.finish()
    for name in links:
        with suppress(OSError, RuntimeError):  # loops, and links to nothing
            assert (target / name).resolve(strict=True).is_relative_to(target)
    files.discard()


def test_what_is_read_here_is_what_is_written_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_bytes(os.urandom(700_000))
    (source / "empty").touch(0o600)
    os.mkfifo(source / "pipe")
    (source / "out").symlink_to("/etc/passwd")
    (source / "in").symlink_to("d/f")
    with open(source / "sparse", "wb") as sparse:
        sparse.seek(5_000_000)
        sparse.write(b"end")
    files = Files(tmp_path / "copy", 1 << 30)
    for entry, payload in entries(source):
        files.take(entry, payload)
    files.finish()
    copied = sorted(str(each.relative_to(tmp_path / "copy")) for each in (tmp_path / "copy").rglob("*"))
    assert copied == ["d", "d/f", "empty", "in", "sparse"]
    for name in ("d/f", "sparse", "in"):
        assert (tmp_path / "copy" / name).read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "copy/sparse").stat().st_blocks < 1000
    with pytest.raises(SandboxPathError, match="exists"):
        Files(tmp_path / "copy", 1)
    with pytest.raises(SandboxPathError):
        list(entries(tmp_path / "absent"))
