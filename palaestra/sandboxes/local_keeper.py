"""What sandboxes take on this machine itself: processes and folders."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from palaestra.errors import SandboxDaemonError
from palaestra.sandboxes.leases import SANDBOX_VARIABLE, VARIABLE, folders_folder
from palaestra.sandboxes.removal import remove_tree
from palaestra.sandboxes.things import Thing


class LocalKeeper:
    """Processes whose environment has a lease's id, and what lies in the folders of leases."""

    name = "local"

    async def things(self) -> list[Thing]:
        """See `Keeper.things`."""
        return await asyncio.to_thread(lambda: [*_processes(), *_folders()])

    async def remove(self, thing: Thing) -> None:
        """See `Keeper.remove`."""
        try:
            await asyncio.to_thread(_kill if thing.kind == "process" else _remove_folder, thing)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SandboxDaemonError(f"cannot remove {thing.kind} {thing.name}: {reason}") from error


def _processes() -> Iterator[Thing]:
    """The first of each family: what it has started goes with it."""
    marked = {pid: lease for pid in _pids() if (lease := _variable(pid, VARIABLE))}
    for pid, lease in marked.items():
        if marked.get(_parent(pid)) != lease:
            with suppress(OSError):
                title, created = _variable(pid, SANDBOX_VARIABLE), Path(f"/proc/{pid}").stat().st_mtime
                yield Thing(f"{pid}", "process", "local", lease, title=title, created=created)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _variable(pid: int, name: str) -> str:
    """What a process was started with, which only its own user can read; empty: without it."""
    with suppress(OSError):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        mark = f"{name}=".encode()
        return next((each[len(mark) :].decode("ascii", "replace") for each in variables if each.startswith(mark)), "")
    return ""


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return 0


def _kill(thing: Thing) -> None:
    """Kill a process and all that came of it, unless its number is another's by now."""
    first = int(thing.name)
    if _variable(first, VARIABLE) != thing.lease:
        return
    family, parents = {first}, {pid: _parent(pid) for pid in _pids()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in sorted(family):  # the first one first, so that it does not start others in their place
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _folders() -> Iterator[Thing]:
    """Whatever lies in a lease's folder, or the folder itself where nothing does."""
    for folder in _inside(folders_folder()):
        for path in _inside(folder) or [folder]:
            with suppress(OSError):
                yield Thing(str(path), "folder", "local", folder.name, created=path.lstat().st_mtime)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _remove_folder(thing: Thing) -> None:
    path, top = Path(thing.name), folders_folder()
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
    if path.parent != top:
        with suppress(OSError):  # the last one out
            path.parent.rmdir()
