"""What is taken over from an agent, file by file."""

import os
import socket
import stat
from pathlib import Path

import pytest

from palaestra.envs.swe.submission import Submission, import_roots, refusal, sort_out

BEFORE = import_roots(iter(["src/alpha/core.py", "test/test_a.py", "README", "lib/x.py", "venv/bin/tool"]))


@pytest.mark.parametrize(
    "path",
    [
        *("alpha.py", "src/alpha/json.py", "src/alpha/data.txt", "a b.py", "src/new/deep/er.py", "setup.py"),
        *("docs/conf.py", "src/alpha/unittest/x.py", "test/other.py", "é.py", "build/x.py", ".hidden/x.py"),
    ],
)
def test_taken(path: str) -> None:
    assert refusal(path, ["tests", "test/test_a.py"], BEFORE) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("tests/test_a.py", "belongs to the tests"),
        ("tests", "belongs to the tests"),
        ("test/test_a.py", "belongs to the tests"),
        ("conftest.py", "starts"),
        ("src/alpha/conftest.py", "starts"),
        ("src/sitecustomize.py", "starts"),
        ("pytest.ini", "starts"),
        ("sub/pyproject.toml", "starts"),
        ("evil.pth", "compiled"),
        ("src/alpha/core.cpython-311-x86_64-linux-gnu.so", "compiled"),
        ("src/alpha/__pycache__/core.cpython-311.pyc", "folder of tools"),
        (".git/config", "folder of tools"),
        (".git", "starts"),
        ("src/alpha.egg-info/entry_points.txt", "folder of tools"),
        ("evil-1.0.dist-info/entry_points.txt", "folder of tools"),
        (".local/lib/python3.11/site-packages/usercustomize.py", "folder of tools"),
        ("json.py", "hides"),
        ("src/json/__init__.py", "hides"),
        ("lib/pytest.py", "hides"),
        ("_pytest/runner.py", "hides"),
        ("json.abi3.py", "hides"),
        ("a\nb.py", "control character"),
        ("\udcff.py", "not text"),
    ],
)
def test_left_out(path: str, why: str) -> None:
    assert why in refusal(path, ["tests", "test/test_a.py"], BEFORE)


def test_what_the_task_has_is_no_shadow() -> None:
    assert refusal("code/other.py", [], frozenset({"code"})) == ""
    assert "hides" in refusal("code/other.py", [], frozenset())


def sorted_out(folder: Path) -> Submission:
    return sort_out(folder / "raw", ["tests"], frozenset(), folder / "taken")


def test_links_pipes_and_sockets_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    (raw / "a").mkdir(parents=True)
    monkeypatch.chdir(raw)
    (raw / "a/one.py").write_text("1")
    (raw / "run.sh").write_text("2")
    (raw / "run.sh").chmod(0o4777)
    os.symlink("/etc/passwd", "out.py")
    os.symlink("a", "folder")
    os.symlink("nowhere", "gone")
    os.mkfifo("pipe.py")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("s.py")
        found = sorted_out(tmp_path)
    assert found.paths == {"a/one.py", "run.sh"}
    assert set(found.left_out) == {"out.py", "folder", "gone", "pipe.py", "s.py"}
    assert sorted(p.name for p in found.folder.rglob("*")) == ["a", "one.py", "run.sh"]
    assert stat.S_IMODE((found.folder / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((found.folder / "a/one.py").stat().st_mode) == 0o644


def test_a_hard_link_is_a_file_of_its_own(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "tests").mkdir(parents=True)
    (raw / "tests/t.py").write_text("test")
    os.link(raw / "tests/t.py", raw / "alpha.py")
    found = sorted_out(tmp_path)
    assert found.paths == {"alpha.py"}
    assert found.left_out == {"tests/t.py": "belongs to the tests"}
