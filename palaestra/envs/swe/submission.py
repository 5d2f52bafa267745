"""What an agent hands in: the files of its repository, as data, without those that could reach into the grading.

Files are taken by what they are and where they lie, never by what they say. A file that is left out is not missing
where the tests run: there it is as the task has it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.tree import MOST_BYTES, MOST_FILES, within
from palaestra.errors import SandboxDaemonError, SandboxError, SandboxPathError
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Sandbox

SECONDS = 60.0
"""That reading the files out of a sandbox may take; then they are read out of a fork of it, where nothing runs."""
MOST_ENTRIES = 2000
"""Files and folders directly in the repository."""

_FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", ".tox", ".nox", ".venv", "venv", ".local", "node_modules"),
        *("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"),
    }
)
_NAMES = frozenset(
    {
        *("conftest.py", "sitecustomize.py", "usercustomize.py", "pyvenv.cfg"),
        *("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg", "pyproject.toml"),
    }
)
_ENDINGS = (".pth", ".pyc", ".pyo", ".so", ".pyd", ".egg-link", ".egg", ".whl")
_FOLDER_ENDINGS = (".egg-info", ".dist-info")
_TESTERS = frozenset(
    {
        *("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "py", "pygments", "exceptiongroup", "tomli"),
        *("colorama", "pytest_asyncio", "xdist", "hypothesis", "attr", "attrs"),
    }
)
"""What runs the tests, by the names that they are imported by."""
_RESERVED = _TESTERS | sys.stdlib_module_names

_LIST = (
    "import os, sys; "
    "names = [each.name for each in os.scandir(b'.') if each.is_dir(follow_symlinks=False) "
    "or each.is_file(follow_symlinks=False)]; "
    r"sys.stdout.buffer.write(b'\0'.join(names))"
)
"""Neither links, which are never taken, nor pipes and sockets, which cannot be."""


class Submission(Struct, frozen=True):
    """Files of an agent's, laid out on this machine."""

    folder: Path
    """They lie below it as they lay in the repository."""
    paths: frozenset[str]
    """Of all of them, relative."""
    left_out: dict[str, str]
    """Path of what was not taken -> why."""


class Refused(Exception):
    """What the agent left behind cannot be taken over; the message says why."""


def tests_of(instance: Instance) -> tuple[str, ...]:
    """Files and folders in the repository that are the task's: its `test_paths`, and what else holds required tests."""
    required = (*instance.fail_to_pass, *instance.pass_to_pass)
    return tuple(sorted({*instance.test_paths, *(id.partition("::")[0] for id in required)}))


def refusal(path: str, tests: Sequence[str], before: frozenset[str]) -> str:
    """Why a file is not taken from the agent; empty: it is.

    Args:
        path: relative to the repository.
        tests: as of `tests_of`.
        before: names directly in the repository, and directly in its `src` and `lib`, before the agent began.
    """
    *folders, name = path.split("/")
    if odd := _odd_name(path):
        return odd
    if any(within(path, prefix.strip("/")) for prefix in tests):
        return "belongs to the tests"
    if any(folder in _FOLDERS or folder.endswith(_FOLDER_ENDINGS) for folder in folders):
        return "lies in a folder of tools"
    if name in _NAMES or name.endswith(_ENDINGS) or name in _FOLDERS:
        return "changes how Python or pytest starts, or is compiled"
    if (shadow := _import_root(path)) and shadow not in before and shadow.partition(".")[0] in _RESERVED:
        return "hides a module of Python's or pytest's"
    return ""


def _import_root(path: str) -> str:
    """The first part of `path` that `import` would look up, where it would look in the repository, `src` and `lib`."""
    first, *rest = path.split("/")
    return rest[0] if first in ("src", "lib") and rest else first


def import_roots(paths: Iterator[str]) -> frozenset[str]:
    """`before` of `refusal`, from all paths."""
    return frozenset(_import_root(path) for path in paths)


async def collect(final: Sandbox, instance: Instance, before: frozenset[str], target: Path) -> Submission:
    """Take an agent's files out of its sandbox.

    Where that fails or takes long, for example because nothing more can be started there, they are taken out of a fork.

    Args:
        final: as the agent left it; its processes may still run.
        instance: the task.
        before: as in `refusal`.
        target: a folder to work in, which does not exist.

    Raises:
        Refused: they are too many or too large, or cannot be read.
        SandboxDaemonError: the engine is gone.
    """
    raw = target / "raw"
    raw.mkdir(parents=True)
    try:
        await asyncio.wait_for(_download(final, instance.repository, raw), SECONDS)
    except (SandboxError, TimeoutError):
        raw = target / "still"  # what was given up may go on writing into the other for a moment
        raw.mkdir()
        await _download_fork(final, instance.repository, raw)
    return await asyncio.to_thread(sort_out, raw, tests_of(instance), before, target / "taken")


async def _download_fork(final: Sandbox, repository: str, raw: Path) -> None:
    async with AsyncExitStack() as stack:
        try:
            (still,) = await asyncio.wait_for(final.fork(1), SECONDS)
            await stack.enter_async_context(still)
            await asyncio.wait_for(_download(still, repository, raw), SECONDS)
        except SandboxDaemonError:
            raise
        except SandboxPathError as error:
            raise Refused(f"the repository cannot be read: {error}") from error
        except (SandboxError, TimeoutError) as error:
            raise Refused(f"the sandbox does not answer any more: {error}") from error


async def _download(sandbox: Sandbox, repository: str, raw: Path) -> None:
    """All but the folders that are left out anyway, which may be large."""
    listed = await sandbox.exec(
        Exec(argv=("python3", "-I", "-S", "-c", _LIST), cwd=repository, timeout=SECONDS, output=1 << 20)
    )
    if not listed.ok or listed.stdout.dropped:
        raise SandboxPathError("the repository cannot be listed")
    printed = (listed.stdout.head + listed.stdout.tail).decode(errors="replace")
    names = [name for name in printed.split("\0") if name]
    if len(names) > MOST_ENTRIES:
        raise Refused(f"there are {len(names)} files and folders in the repository; at most {MOST_ENTRIES} are judged")
    left = MOST_BYTES
    for name in names:
        if name in _FOLDERS or "\ufffd" in name:
            continue
        await sandbox.download(f"{repository}/{name}", raw / name, limit=left)
        left -= await asyncio.to_thread(_size, raw / name)


def _size(place: Path) -> int:
    return sum(info.st_size for _, info in _walk(place)) if place.is_dir() else 0


def sort_out(raw: Path, tests: Sequence[str], before: frozenset[str], taken: Path) -> Submission:
    """Move what is taken from `raw` to `taken`, as plain files with plain modes.

    Links are never taken, neither are devices, pipes and sockets.

    Raises:
        Refused: there are too many files.
    """
    taken.mkdir()
    paths: set[str] = set()
    left_out: dict[str, str] = {}
    for path, info in list(_walk(raw)):
        reason = _kind(info) or refusal(path, tests, before)
        if reason:
            left_out[path] = reason
            continue
        try:
            _move(raw / path, taken / path, 0o755 if info.st_mode & 0o100 else 0o644)
        except OSError as error:
            raise Refused(f"{path[:200]!r} cannot be taken over: {error.strerror}") from error
        paths.add(path)
    if len(paths) > MOST_FILES:
        raise Refused(f"there are {len(paths)} files in the repository; at most {MOST_FILES} are judged")
    return Submission(taken, frozenset(paths), left_out)


def _move(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    target.chmod(mode)


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Whatever is no folder, with its path relative to `folder`. Links are not followed."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in (*names, *links):
            place = os.path.join(parent, name)
            yield os.path.relpath(place, folder), os.lstat(place)


def _kind(info: os.stat_result) -> str:
    if stat.S_ISLNK(info.st_mode):
        return "is a link"
    return "" if stat.S_ISREG(info.st_mode) else "is no regular file"


def _odd_name(path: str) -> str:
    """Names that tools on the way could take for something else."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "has a name that is not text"
    return "has a control character in its name" if any(ord(letter) < 32 for letter in path) else ""
