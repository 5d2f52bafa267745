"""Files of a commit, out of a clone or a mirror on this machine, kept in the cache. Nothing of a repository is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from palaestra.errors import DataError
from palaestra.files import cache_root, cannot_write

SECONDS = 300.0
"""That git may take."""
MOST_BYTES = 2 * 1024 * 1024 * 1024
"""Of the files of a commit."""
_QUIET = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_SAFE = ("-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")


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
    size = _size(mirror, whole, where)
    if size > MOST_BYTES:
        raise DataError(f"{where}: the files of {repo} at {commit} have {size} bytes, more than {MOST_BYTES}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".fresh-", dir=folder.parent))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        _lay(mirror, whole, fresh, where)
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


def _size(mirror: Path, commit: str, where: str) -> int:
    listed = _git(mirror, ["ls-tree", "-r", "-l", "-z", commit], where).split(b"\0")
    sizes = (line.split(b"\t")[0].split()[-1] for line in listed if line)
    return sum(int(size) for size in sizes if size.isdigit())


def _lay(mirror: Path, commit: str, folder: Path, where: str) -> None:
    """Its files as git has them: no filter, no line ends, nothing of what its attributes ask for."""
    with tempfile.TemporaryDirectory() as spare:
        env = {"GIT_INDEX_FILE": f"{spare}/index", "GIT_ATTR_SOURCE": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}
        _git(mirror, ["read-tree", commit], where, env)
        _git(
            mirror, ["-c", "core.bare=false", f"--work-tree={folder}", "checkout-index", "-a", "-f"], where, env, folder
        )


def _git(
    mirror: Path, command: Sequence[str], where: str, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> bytes:
    git_dir = mirror / ".git" if (mirror / ".git").exists() else mirror
    place = ["-C", str(folder), "--git-dir", str(git_dir)] if folder else ["-C", str(mirror)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *place, *_SAFE, *command],
            env={**inherited, **_QUIET, **(env or {})},
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
