"""Archives that nobody vouches for, read within limits; trees laid into folders whole or not at all."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from palaestra.envs.swe import tree
from palaestra.errors import DataError, PalaestraError

Member = tuple[str, bytes | None, dict[str, object]]


def sdist(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content, fields in members:
            member = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(member, field, value)
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return path


def test_the_files_of_a_source_distribution_without_its_folder(tmp_path: Path) -> None:
    path = sdist(
        tmp_path / "a-1.tar.gz",
        ("a-1", None, {"type": tarfile.DIRTYPE}),
        ("a-1/a.py", b"x = 1\n", {}),
        ("a-1/tests/test_a.py", b"", {}),
        ("a-1/link", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("a-1/hard", None, {"type": tarfile.LNKTYPE, "linkname": "a-1/a.py"}),
        ("a-1/device", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("a-1/__pycache__/a.cpython-311.pyc", b"stale", {}),
    )
    assert tree.read_sdist(path) == {"a.py": b"x = 1\n", "tests/test_a.py": b""}


@pytest.mark.parametrize("name", ["../out", "a-1/../../out", "/etc/out", "a-1/new\nline", "a-1\\out"])
def test_a_path_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leave its folder|outside the destination|absolute"):
        tree.read_sdist(sdist(tmp_path / "a-1.tar.gz", (name, b"x", {})))
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(name, "x")
    if name != "a-1/new\nline":
        with pytest.raises(DataError, match="leave its folder"):
            tree.read_wheel(tmp_path / "a.whl")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sdist(tmp_path / "a-1.tar.gz", ("a-1/zeros", b"\0" * 100_000, {}), ("a-1/b", b"", {}))
    monkeypatch.setattr(tree, "MOST_BYTES", 50_000)
    with pytest.raises(DataError, match="limit"):
        tree.read_sdist(path)
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 100_000)
    with pytest.raises(DataError, match="limit"):
        tree.read_wheel(tmp_path / "a.whl")
    monkeypatch.setattr(tree, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(tree, "MOST_FILES", 1)
    with pytest.raises(DataError, match="limit"):
        tree.read_sdist(path)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\x1f\x8b\x08\0\0\0\0\0"])
def test_a_damaged_archive_is_an_error_of_its_own(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "a"
    place.write_bytes(content)
    for read in (tree.read_sdist, tree.read_wheel):
        with pytest.raises(DataError, match="damaged"):
            read(place)


def test_a_truncated_archive_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = sdist(tmp_path / "a-1.tar.gz", ("a-1/noise", bytes(range(256)) * 400, {}))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="damaged"):
        tree.read_sdist(path)


def test_a_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/", "")
        archive.writestr("a/b.py", "x = 1\n")
    assert tree.read_wheel(tmp_path / "a.whl") == {"a/b.py": b"x = 1\n"}


def test_what_lies_below(tmp_path: Path) -> None:
    files = {"src/a.py": b"", "srcs/a.py": b"", "a.py": b""}
    assert set(tree.below(files, ["src"])) == {"src/a.py"}
    assert set(tree.below(files, ["src/", "a.py"])) == {"src/a.py", "a.py"}


def test_a_tree_is_laid_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "tree"
    assert tree.lay({"a/b.txt": b"b", "c": b"c"}, folder) == folder
    assert tree.read_folder(folder) == {"a/b.txt": b"b", "c": b"c"}
    assert tree.lay({"other": b""}, folder) == folder
    assert tree.read_folder(folder) == {"a/b.txt": b"b", "c": b"c"}
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PalaestraError, match="cannot write"):
        tree.lay({"a": b""}, tmp_path / "file" / "tree")
    with pytest.raises(PalaestraError, match="cannot write"):
        tree.lay({"a": b"", "a/b": b""}, tmp_path / "clash")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new"]


def test_links_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert set(tree.read_folder(tmp_path)) == {"a"}
