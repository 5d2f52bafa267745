"""Trees of files as entries: from this machine's disk, and to it from a sandbox that is not to be trusted.

Entries are what `runner` reads and writes: folders (`d`), files (`f`, of which `c` is more), links (`l`), hard links
(`h`) and pipes (`p`), with path, mode and time.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from palaestra.errors import SandboxPathError
from palaestra.sandboxes.runner.files import write_all
from palaestra.sandboxes.runner.frames import OVERHEAD, shown
from palaestra.sandboxes.runner.trees import holding

Entry = dict[str, Any]


def entries(source: Path) -> Iterator[tuple[Entry, bytes]]:
    """A file, or a folder and all that is in it but sockets, pipes and devices.

    Raises:
        SandboxPathError: it does not exist, or cannot be read.
    """
    try:
        waiting = [(os.fsencode(source), "")]
        while waiting:
            path, name = waiting.pop()
            status = os.lstat(path) if name else os.stat(path)
            entry = {"p": name, "m": stat.S_IMODE(status.st_mode), "n": status.st_mtime_ns}
            if stat.S_ISDIR(status.st_mode):
                yield {**entry, "t": "d"}, b""
                prefix = f"{name}/" if name else ""
                waiting += [(os.path.join(path, each), prefix + shown(each)) for each in sorted(os.listdir(path))[::-1]]
            elif stat.S_ISREG(status.st_mode):
                yield from _file(path, {**entry, "t": "f", "s": status.st_size})
            elif stat.S_ISLNK(status.st_mode):
                yield {**entry, "t": "l", "to": shown(os.readlink(path))}, b""
    except OSError as error:
        raise SandboxPathError(f"cannot read {source}: {error.strerror or error}") from error


def _file(path: bytes, entry: Entry) -> Iterator[tuple[Entry, bytes]]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW if entry["p"] else os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = holding(file, entry["s"])
        offset, data = next(parts, (0, b""))
        yield entry, b"" if offset else data
        if offset:
            yield {"t": "c", "o": offset}, data
        for offset, data in parts:
            yield {"t": "c", "o": offset}, data
    finally:
        os.close(file)


class Files:
    """What comes out of a sandbox, put below `target`, which must not exist.

    Raises:
        SandboxPathError: it exists, or cannot be written; from `take`: there are more than `limit` bytes, or what comes
            is no tree.
    """

    def __init__(self, target: Path, limit: int, *, all_links: bool = False) -> None:
        self._target, self._limit, self._left = os.fsencode(target), limit, limit
        self._all_links = all_links  # those that lead out too, for what goes into a sandbox from here
        self._made = False
        self._folders: dict[str, tuple[int, int]] = {}
        self._files: set[str] = set()
        self._links: list[tuple[str, str]] = []
        self._open = -1
        self._end = (0, 0, 0)
        if os.path.lexists(self._target):
            raise SandboxPathError(f"{target} exists already")

    def take(self, entry: object, payload: bytes) -> None:
        """One entry, or more of the file before."""
        try:
            if not isinstance(entry, dict):
                raise ValueError("no entry")
            self._take(entry, payload)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SandboxPathError(f"what the sandbox sends is no tree of files: {error}") from error
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> SandboxPathError:
        return SandboxPathError(f"cannot write {os.fsdecode(self._target)}: {error.strerror or error}")

    def _take(self, entry: Entry, payload: bytes) -> None:
        kind = entry["t"]
        if kind == "c":
            return self._more(int(entry["o"]), payload)
        self._close()
        name = self._checked(entry["p"])
        self._count(OVERHEAD)
        if kind == "d":
            os.mkdir(self._path(name), 0o700)
            self._made = True
            self._folders[name] = (int(entry["m"]) & 0o777 | 0o700, int(entry["n"]))
        elif kind == "f":
            self._begin(name, entry, payload)
        elif kind == "l":
            self._links.append((name, str(entry["to"])))
        elif kind == "h" and entry["to"] in self._files:
            os.link(self._path(entry["to"]), self._path(name), follow_symlinks=False)
            self._files.add(name)

    def _begin(self, name: str, entry: Entry, payload: bytes) -> None:
        size = int(entry["s"])
        self._count(size)  # with its holes: whoever reads it here reads them too
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._open = os.open(self._path(name), flags, 0o600)
        self._made = True
        self._files.add(name)
        self._end = (size, int(entry["m"]) & 0o777, int(entry["n"]))
        os.ftruncate(self._open, size)
        self._more(0, payload)

    def _more(self, offset: int, payload: bytes) -> None:
        if not 0 <= offset <= offset + len(payload) <= self._end[0]:
            if payload:
                raise ValueError("data outside of its file")
            return
        os.lseek(self._open, offset, os.SEEK_SET)
        write_all(self._open, payload)

    def _count(self, size: int) -> None:
        self._left -= size
        if size < 0 or self._left < 0:
            raise SandboxPathError(f"there are more than {self._limit} bytes in it")

    def _checked(self, name: str) -> str:
        """A path whose parents are folders made here."""
        parts = name.split("/") if name else []
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ValueError("a path that leads out")
        if parts and "/".join(parts[:-1]) not in self._folders:
            raise ValueError("a path without its folder")
        return name

    def _path(self, name: str) -> bytes:
        return os.path.join(self._target, name.encode("utf-8", "surrogateescape")) if name else self._target

    def _close(self) -> None:
        if self._open >= 0:
            file, self._open = self._open, -1
            try:
                os.fchmod(file, self._end[1])
                os.utime(file, ns=(self._end[2], self._end[2]))
            finally:
                os.close(file)

    def finish(self) -> None:
        """Links, modes and times."""
        try:
            self._close()
            # Links come last, so that nothing was ever written through one.
            for name, to in self._links:
                if self._all_links or _stays(name, to):
                    os.symlink(to.encode("utf-8", "surrogateescape"), self._path(name))
            for name, (mode, when) in reversed(self._folders.items()):
                os.chmod(self._path(name), mode)
                os.utime(self._path(name), ns=(when, when))
        except (ValueError, OverflowError) as error:
            raise SandboxPathError(f"what the sandbox sends is no tree of files: {error}") from error
        except OSError as error:
            raise self._cannot_write(error) from error
        if not self._made:
            raise SandboxPathError("there is no file or folder")

    def discard(self) -> None:
        """Remove what was made."""
        if self._open >= 0:
            os.close(self._open)
            self._open = -1
        if self._made:
            if "" in self._folders:
                shutil.rmtree(self._target, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(self._target)


def _stays(name: str, to: str) -> bool:
    """Whether a link stays within the tree: up only at its beginning, and never higher than the tree's root.

    What follows may be other links; each of them stays within it too.
    """
    parts = [part for part in to.split("/") if part not in ("", ".")]
    ups = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    return (
        bool(name and to)
        and not to.startswith("/")
        and "\0" not in to
        and ups <= name.count("/")
        and ".." not in parts[ups:]
    )
