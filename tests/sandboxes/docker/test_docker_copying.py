"""Trees that go into a volume and out again."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.sandboxes.docker import copying

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 60
)
entries = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), st.binary(max_size=300), st.integers(0, 0o777)),
        st.tuples(st.just("link"), st.sampled_from(["/etc/passwd", "..", "a", "\n"]), st.just(0)),
        st.tuples(st.just("pipe"), st.just(None), st.integers(0, 0o777)),
    ),
    lambda inner: st.tuples(st.just("folder"), st.dictionaries(names, inner, max_size=4), st.integers(0, 0o1777)),
    max_leaves=12,
)


def make(path, entry):
    kind, content, mode = entry
    if kind == "link":
        path.symlink_to(content)
        return
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "file":
        path.write_bytes(content)
    else:
        path.mkdir()
        for name, inner in content.items():
            make(path / name, inner)
    os.utime(path, ns=(1, 123_456_789_000))
    path.chmod(mode)


def seen(path):
    """A tree as what can be compared; run by root, or with rights to read it."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "link", os.readlink(path)
    kept = (stat.S_IMODE(status.st_mode), status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        path.chmod(0o700)
        inside = {name: seen(path / name) for name in os.listdir(path)}
        path.chmod(kept[0])
        return "folder", kept, inside
    if stat.S_ISFIFO(status.st_mode):
        return "pipe", kept
    path.chmod(0o600)
    content = path.read_bytes()
    path.chmod(kept[0])
    return "file", kept, content


def copied(source, folder):
    """Into a volume, as this user, and out of it."""
    kept, target = folder / "kept", folder / "target"
    kept.mkdir()
    target.mkdir()
    before = os.umask(0o022)
    try:
        count = copying.keep(os.fsencode(source), os.fsencode(kept), os.getuid(), os.getgid())
        assert copying.fill(os.fsencode(kept), os.fsencode(target)) == count
    finally:
        os.umask(before)
    return kept, target


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, entries, max_size=5))
def test_what_comes_out_is_what_went_in(tree):
    if os.geteuid() != 0:
        pytest.skip("keeping files that their owner may not read takes root")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        make(source, ("folder", tree, 0o755))
        kept, target = copied(source, Path(name))
        assert seen(target) == seen(source)
        for folder, folders, files in os.walk(kept / "files"):
            for each in folders + files:
                status = os.lstat(os.path.join(folder, each))
                assert stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_IRUSR


def test_holes_stay_holes_and_links_stay_together(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 40)
        file.write(b"end")
        file.seek(1 << 20)
        file.write(b"middle")
    (source / "hole").touch()
    os.truncate(source / "hole", 1 << 30)
    (source / "one").write_text("x")
    os.link(source / "one", source / "other")
    _, target = copied(source, tmp_path)
    sparse = (target / "sparse").stat()
    assert (sparse.st_size, (target / "hole").stat().st_size) == ((1 << 40) + 3, 1 << 30)
    assert sparse.st_blocks < 1000
    assert (target / "one").stat().st_ino == (target / "other").stat().st_ino
    with (target / "sparse").open("rb") as file:
        file.seek(1 << 20)
        assert file.read(6) == b"middle"
        file.seek(1 << 40)
        assert file.read() == b"end"


def test_set_uid_bits_are_dropped_and_the_sticky_bit_is_not(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "tool").touch()
    (source / "tool").chmod(0o6755)
    (source / "shared").mkdir()
    (source / "shared").chmod(0o3777)
    _, target = copied(source, tmp_path)
    assert stat.S_IMODE((target / "tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "shared").stat().st_mode) == 0o1777


def test_a_volume_that_is_not_whole_is_waited_for(tmp_path):
    source, kept, target = (tmp_path / name for name in ("source", "kept", "target"))
    make(source, ("folder", {"file": ("file", b"x", 0o644)}, 0o755))
    for folder in (kept, kept / "files", target):
        folder.mkdir()
    (kept / "files" / "half").touch()
    program = [sys.executable, "-I", "-S", copying.__file__, "fill", kept, target]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as filling:
        time.sleep(0.3)
        assert list(target.iterdir()) == []
        (kept / "files" / "half").unlink()
        (kept / "files").rmdir()
        assert copying.keep(os.fsencode(source), os.fsencode(kept), os.getuid(), os.getgid()) == 1
        assert filling.communicate(timeout=10)[0] == "1\n"
    assert seen(target) == seen(source)


def test_what_is_lent_is_there_until_stdin_ends(tmp_path):
    source, kept = tmp_path / "source", tmp_path / "kept"
    make(source, ("folder", {"shut": ("folder", {"file": ("file", b"x", 0)}, 0)}, 0o755))
    kept.mkdir()
    owner = map(str, (os.getuid(), os.getgid()))
    program = [sys.executable, "-I", "-S", copying.__file__, "lend", source, kept, *owner]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lending:
        assert list(kept.iterdir()) == []
        print(file=lending.stdin, flush=True)
        assert lending.stdout.readline() == "2\n"
        assert (kept / "files" / "shut" / "file").read_bytes() == b"x"
        lending.stdin.close()
        assert lending.wait(10) == 0
    assert not (kept / "files").exists()


def test_a_folder_that_is_not_there_is_an_empty_one(tmp_path):
    assert copying.keep(os.fsencode(tmp_path / "absent"), os.fsencode(tmp_path), 0, 0) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_is_one_line(tmp_path):
    program = [sys.executable, "-I", "-S", copying.__file__, "fill", tmp_path / "\n", tmp_path]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("No such file or directory: ")
