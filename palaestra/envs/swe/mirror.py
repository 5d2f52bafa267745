"""Files of a commit, out of a clone or a mirror on this machine, kept in the cache. Nothing of a repository is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from palaestra.errors import DataError
from palaestra.files import cache_root, cannot_write

SECONDS = 300.0
"""That git may take."""
MOST_BYTES = 2 * 1024 * 1024 * 1024
"""Of the files of a commit."""
MOST_FILES = 200_000
_LINK = "120000"
_QUIET = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}
_SAFE = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never")
"""A clone may be a stranger's, and its settings with it: only what git does without them is asked for."""


class _Entry(NamedTuple):
    mode: str
    id: str
    """Of its content."""
    size: int
    path: str


def checked_out(repositories: Path, repo: str, commit: str, where: str) -> Path:
    """A folder with the files of a commit, links among them and no `.git`; it is not to be changed.

    Args:
        repositories: folder with clones or mirrors.
        repo: `OWNER/NAME`.
        commit: its hash, in hexadecimal.
        where: whose they are, for messages.

    Raises:
        DataError: there is no such clone, it lacks the commit, or git cannot read it.
        PalaestraError: the cache cannot be written.
    """
    mirror = _find(repositories, repo, where)
    whole = _git(mirror, ["rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"], where).decode().strip()
    folder = cache_root() / "swe" / "commits" / repo.replace("/", "__") / whole
    if folder.is_dir():
        return folder
    entries = _entries(mirror, whole, where)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".fresh-", dir=folder.parent))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        _lay(mirror, entries, fresh, where)
        fresh.chmod(0o755)
        fresh.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # otherwise somebody else laid the same meanwhile
            raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _find(repositories: Path, repo: str, where: str) -> Path:
    names = (repo, repo.replace("/", "__"), repo.partition("/")[2])
    for name in names:
        for place in (repositories / name, repositories / f"{name}.git"):
            if (place / ".git").exists() or (place / "objects").is_dir():
                return place
    raise DataError(f"{where}: {repositories} has no clone of {repo}; put one there, as {repositories / names[1]}")


def _entries(mirror: Path, commit: str, where: str) -> list[_Entry]:
    """Files and links of a commit; submodules are none. Their sizes are what git says."""
    found: list[_Entry] = []
    for line in _git(mirror, ["ls-tree", "-r", "-l", "-z", "--full-tree", commit], where).split(b"\0"):
        head, _, path = line.partition(b"\t")
        fields = head.split()
        if len(fields) == 4 and fields[1] == b"blob":
            found.append(_Entry(fields[0].decode(), fields[2].decode(), int(fields[3]), os.fsdecode(path)))
            _check(found[-1].path, where)
    if len(found) > MOST_FILES or sum(entry.size for entry in found) > MOST_BYTES:
        raise DataError(f"{where}: the files of {commit[:12]} are more than {MOST_FILES}, or than {MOST_BYTES} bytes")
    return sorted(found, key=lambda entry: entry.mode == _LINK)  # links last: nothing is written through one


def _check(path: str, where: str) -> None:
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise DataError(f"{where}: its repository has a file {path[:200]!r}, which no repository should have")


def _lay(mirror: Path, entries: Sequence[_Entry], folder: Path, where: str) -> None:
    """The files as git has them: no filter, no line ends, nothing of what their attributes or its settings ask for."""
    with _started(mirror, ["cat-file", "--batch"]) as git:
        assert git.stdin is not None
        assert git.stdout is not None
        try:
            for entry in entries:
                git.stdin.write(f"{entry.id}\n".encode())
                git.stdin.flush()
                header = git.stdout.readline().split()
                if len(header) != 3 or int(header[2]) != entry.size:
                    raise DataError(f"{where}: git cannot read {entry.path[:200]!r} of {mirror}")
                content = git.stdout.read(entry.size + 1)[:-1]
                _write(folder / entry.path, entry.mode, content)
        finally:
            git.kill()


def _write(place: Path, mode: str, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if mode == _LINK:
        os.symlink(os.fsdecode(content), place)
        return
    with open(place, "xb") as stream:
        stream.write(content)
    place.chmod(0o755 if mode == "100755" else 0o644)


def _started(mirror: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _command(mirror, command),
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _command(mirror: Path, command: Sequence[str]) -> list[str]:
    return ["git", "-C", str(mirror), *_SAFE, *command]


def _environment() -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")}, **_QUIET}


def _git(mirror: Path, command: Sequence[str], where: str) -> bytes:
    try:
        done = subprocess.run(
            _command(mirror, command),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise DataError(f"{where}: git is not installed, which reads repositories") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"{where}: git took longer than {SECONDS:g} s with {mirror}") from None
    if done.returncode:
        why = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:] or f"{mirror} has no such commit"
        raise DataError(f"{where}: {why}")
    return done.stdout
