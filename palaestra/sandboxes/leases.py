"""Leases: who holds what, so that everything can be removed once its holder is gone, however it went.

A lease is a file that its process keeps locked. The kernel frees the lock with the process, also after `kill -9`, and
no later process with the same number can be taken for it. Everything that a sandbox takes on a machine (containers,
volumes, folders) carries the lease's id, and is left over as soon as the lock is free or the file is gone.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import platform
import re
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from palaestra.errors import SandboxError
from palaestra.files import cache_root

LABEL = "palaestra.lease"
"""Name of the label that holds a lease's id."""
EXPIRES_LABEL = "palaestra.expires"
"""Name of the label that holds the second since 1970 after which a thing is left over, whoever holds its lease."""

VARIABLE = "PALAESTRA_LEASE"
"""Name of the variable that holds a lease's id, in processes."""
SANDBOX_VARIABLE = "PALAESTRA_SANDBOX"
"""Name of the variable that holds a sandbox's id, in its first process."""

State = Literal["alive", "expired", "dead", "elsewhere"]
"""Of a lease: its process lives; it does, but too long; it does not; or it is kept in a folder that is not this one."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{16}")
_MEND = "free some space there, or set PALAESTRA_CACHE to a folder that can be written"
_PARTIAL_SECONDS = 60.0
"""Age from which a lease that was never finished is nobody's: making one takes less than a millisecond."""


class Holder(msgspec.Struct, frozen=True):
    """What a lease says about its process. Only people read the last five."""

    pid: int
    """Its number."""
    started: int
    """When it began, in the kernel's ticks since the machine's; tells it from a later process of the same number."""
    boot: str
    """Which run of which machine the ticks are of."""
    namespace: str
    """Where the number is valid: containers count for themselves."""
    host: str
    """Name of the machine."""
    user: str
    """Whose process it is."""
    command: str
    """Its command line, shortened."""
    purpose: str
    """What the lease is for, such as the name of a back end."""
    created: float
    """Seconds since 1970."""
    expires: float | None = None
    """Seconds since 1970 from which the lease is void although its process lives; `None`: never."""


class Listed(msgspec.Struct, frozen=True):
    """A lease as others see it."""

    id: str
    """See `Lease.id`."""
    state: State
    """See `State`."""
    holder: Holder | None
    """`None` where the file is damaged."""


class Lease:
    """A lease that this process holds. Made by `open`; children that are forked off do not hold it."""

    def __init__(self, id: str, path: Path, descriptor: int, holder: Holder) -> None:
        self.id = id
        """Names the folder that the lease is kept in, then the lease."""
        self.path = path
        """Of its file."""
        self.holder = holder
        """What the file says."""
        self._descriptor = descriptor
        self._pid = os.getpid()

    @classmethod
    def open(cls, purpose: str = "", seconds: float | None = None) -> Lease:
        """Take a lease. It ends with `close` or with this process.

        Args:
            purpose: what it is for, for people.
            seconds: after which it is void although this process lives; `None`: never.

        Raises:
            SandboxError: the folder of leases cannot be written, or its file system has no locks.
        """
        folder = leases_folder()
        try:
            id = f"{_store(folder)}-{secrets.token_hex(8)}"
            path = folder / f"{id}.json"
            holder = _this_process(purpose, seconds)
            with _no_fork:
                lease = cls(id, path, _locked(path, msgspec.json.encode(holder)), holder)
                _open.add(lease)
        except OSError as error:
            raise SandboxError(f"cannot keep a lease in {folder}: {error.strerror or error}; {_MEND}") from error
        return lease

    def labels(self, seconds: float | None = None) -> dict[str, str]:
        """Labels of a thing that belongs to this lease and, where `seconds` is given, must be gone by then."""
        expires = {} if seconds is None else {EXPIRES_LABEL: f"{time.time() + seconds:.0f}"}
        return {LABEL: self.id, **expires}

    def environment(self, sandbox: str) -> dict[str, str]:
        """Variables for the process of a sandbox, by which it is found, also should it outlive its holder."""
        return {VARIABLE: self.id, SANDBOX_VARIABLE: sandbox}

    def folder(self) -> Path:
        """A folder for what belongs to this lease, made at the first call and removed by `close` or the reaper.

        Raises:
            SandboxError: it cannot be made.
        """
        folder = folders_folder() / self.id
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SandboxError(f"cannot make {folder}: {error.strerror or error}; {_MEND}") from error
        return folder

    @property
    def held(self) -> bool:
        """Whether it is open, and by this process: a fork of the one that took it holds nothing."""
        return self._descriptor >= 0 and self._pid == os.getpid()

    def close(self) -> None:
        """Give it back: what still carries its id is left over from now on. May be called more than once."""
        if not self.held:
            return
        with suppress(OSError):
            (folders_folder() / self.id).rmdir()  # what is not empty is the reaper's
        with suppress(OSError):  # on a disk that has become read-only the freed lock says it all
            self.path.unlink()
        with _no_fork:
            os.close(self._descriptor)
            self._descriptor = -1
            _open.discard(self)

    def _forget(self) -> None:
        """In a forked child: let go of the lock, which the parent goes on holding."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def leases_folder() -> Path:
    """Where the leases of this user on this machine are kept."""
    return cache_root() / "sandboxes" / "leases"


def folders_folder() -> Path:
    """Where leases have their folders, each named by its lease's id."""
    return cache_root() / "sandboxes" / "folders"


def state(id: str) -> State:
    """State of the lease `id`, which may be anything that was found in a label or a name.

    Look for what carries the id first and ask then: a lease's file is there before anything carries its id.
    """
    folder = leases_folder()
    if not _ID.fullmatch(id) or not id.startswith(f"{_known_store(folder)}-"):
        return "elsewhere"
    return _look(folder / f"{id}.json").state


def leases() -> list[Listed]:
    """All leases of this folder, oldest first; sweeps away what was never finished."""
    with suppress(OSError):
        for path in leases_folder().glob(".*.partial"):
            _sweep(path)
    found = [_look(path) for path in leases_folder().glob("*.json") if _ID.fullmatch(path.stem)]
    return sorted(found, key=lambda each: (each.holder.created if each.holder else 0.0, each.id))


def lease_of(id: str) -> Listed:
    """The lease `id` as others see it."""
    return _look(leases_folder() / f"{id}.json") if state(id) != "elsewhere" else Listed(id, "elsewhere", None)


@contextmanager
def reaping() -> Iterator[bool]:
    """While it is entered nobody else reaps; gives whether that is so, or somebody else does right now.

    The lock is of the kind that forked children do not share. Two threads of one process may both have it.
    """
    try:
        descriptor = os.open(leases_folder() / "reaper", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # no folder, or none to write to: whoever reaps all the same finds things gone, at worst
        yield True
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        yield error.errno not in (errno.EAGAIN, errno.EACCES)
    else:
        yield True
    finally:
        os.close(descriptor)


def forget(id: str) -> None:
    """Delete the file of a lease that is dead, and of which nothing is left."""
    if state(id) == "dead":
        with suppress(OSError):
            (leases_folder() / f"{id}.json").unlink()


_open: set[Lease] = set()
_no_fork = threading.RLock()


def _after_fork() -> None:
    for lease in _open:
        lease._forget()
    _open.clear()
    _no_fork.release()


# A lock is shared with forked children, and would outlive its process in them. The mutex keeps forks apart from leases
# that are just being made.
os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_after_fork)


def _locked(path: Path, content: bytes) -> int:
    """Descriptor of a new file with a lock on it. It has its name only once both are there: nobody sees it without."""
    partial = path.with_name(f".{path.stem}.partial")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.rename(partial, path)
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            partial.unlink()
        raise
    return descriptor


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _look(path: Path) -> Listed:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Listed(path.stem, "dead", None)
    try:
        free = _lock(descriptor, fcntl.LOCK_SH)
        with suppress(msgspec.DecodeError, OSError):
            holder = msgspec.json.decode(os.pread(descriptor, 65536, 0), type=Holder)
            return Listed(path.stem, "dead" if free else _state_of(holder), holder)
    finally:
        os.close(descriptor)
    return Listed(path.stem, "dead" if free else "alive", None)


def _state_of(holder: Holder) -> State:
    if _is_gone(holder):
        return "dead"
    return "expired" if holder.expires is not None and time.time() > holder.expires else "alive"


def _is_gone(holder: Holder) -> bool:
    """Whether that process has ended although somebody holds its lock: a child that was forked off behind our back."""
    if (holder.boot, holder.namespace) != (_boot(), _namespace()):
        return False  # its number says nothing here; the lock has to do
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return (_started(holder.pid) or holder.started) != holder.started


def _sweep(partial: Path) -> None:
    with suppress(OSError):
        if time.time() - partial.stat().st_mtime > _PARTIAL_SECONDS:
            partial.unlink()


def _store(folder: Path) -> str:
    """Name of this folder of leases, made at the first call: so nobody takes another folder's leases for dead ones."""
    if known := _known_store(folder):
        return known
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = folder / f".{secrets.token_hex(8)}.partial"
    try:
        with open(partial, "x", encoding="ascii") as file:
            file.write(secrets.token_hex(4))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody was faster
            os.link(partial, folder / "store")
    finally:
        partial.unlink(missing_ok=True)
    if known := _known_store(folder):
        return known
    raise SandboxError(f"{folder / 'store'} is damaged; delete it, and whatever docker shows with label {LABEL}")


def _known_store(folder: Path) -> str:
    """Its name; empty where it has none yet, or a damaged one."""
    try:
        name = (folder / "store").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return name if re.fullmatch("[0-9a-f]{8}", name) else ""


def _this_process(purpose: str, seconds: float | None) -> Holder:
    now = time.time()
    return Holder(
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
        boot=_boot(),
        namespace=_namespace(),
        host=platform.node(),
        user=_user(),
        command=_command(),
        purpose=purpose,
        created=now,
        expires=None if seconds is None else now + seconds,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as in many containers
        return str(os.getuid())


def _command() -> str:
    command = shlex.join([Path(sys.executable or "python").name, *sys.orig_argv[1:]])
    return " ".join(command.encode("utf-8", "replace").decode().split())[:200]


def _started(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
