"""How a worker forks itself, and when that is right."""

from __future__ import annotations

import array
import asyncio
import ctypes
import gc
import os
import random
import re
import signal
import socket
import stat
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from palaestra.envs.isolation import proc
from palaestra.envs.isolation.wire import Forked, Refused, frame

_HARMLESS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_C = ctypes.PyDLL(None, use_errno=True)
_WRITABLE_SHARED = re.compile(rb"^\S+ .w.s ", re.MULTILINE)


class OpenFile(NamedTuple):
    """A file that a process only reads, by its number and position."""

    number: int
    position: int


def obstacle(loop: asyncio.AbstractEventLoop, known: set[int]) -> str:
    """Why a copy of this process would not be independent, or not complete; empty where it is right to fork.

    `known` files are not looked at.
    """
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        names = sorted(thread.name for thread in threading.enumerate())[1:]
        return f"it runs {threads} threads" + (f" ({', '.join(names[:3])})" if names else "")
    if has_children():
        return "it has child processes"
    if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        return "a timer of its runs"
    if any(not task.done() for task in asyncio.all_tasks(loop)) or _has_timers(loop):
        return "tasks of its wait in the event loop"
    for number in proc.open_files() - known:
        if reason := _held_by(number):
            return reason
    return ""


def has_children() -> bool:
    """Whether this process has child processes, even if they have ended and nobody waited for them."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _has_timers(loop: asyncio.AbstractEventLoop) -> bool:
    handles: Sequence[asyncio.TimerHandle] = getattr(loop, "_scheduled", ())  # no public way to ask
    return any(not handle.cancelled() for handle in handles)


def _held_by(number: int) -> str:
    """Why the open file is in the way; empty if it is not."""
    try:
        mode, name = os.fstat(number).st_mode, os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""  # the listing's own
    if stat.S_ISDIR(mode) or name in _HARMLESS:
        return ""
    if not stat.S_ISREG(mode):
        return f"it has {name.partition(':')[0]} open"
    flags = _file_info(number)["flags"]
    return f"it has {name} open for writing" if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY else ""


def _file_info(number: int) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{number}").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _shared_memory() -> str:
    with open("/proc/self/maps", "rb") as file:
        return "it shares memory that it writes to" if _WRITABLE_SHARED.search(file.read()) else ""


def multiply(near: socket.socket, sockets: Sequence[socket.socket], known: set[int]) -> socket.socket | None:
    """Make a copy of this process for each of `sockets`, and say so on `near`.

    Returns:
        In a copy, its own socket. In the process that was copied, `None`.

    The copies are children of an intermediate process that ends at once, so that the fork server becomes their
    parent: whatever happens here later is not their concern.
    """
    opened = proc.open_files()
    others = opened - known - {each.fileno() for each in sockets}
    files = [OpenFile(number, int(_file_info(number)["pos"])) for number in sorted(others) if _seekable(number)]
    sys.stdout.flush()
    sys.stderr.flush()
    draws = random.getstate()  # Python seeds it anew in every fork
    gc.freeze()  # so that no collection in a copy touches, and thereby copies, everything
    proc.adopt_orphans(False)
    pids, told = os.pipe()
    try:
        between = _bare_fork()
    except OSError as error:
        proc.adopt_orphans(True)
        os.close(pids)
        os.close(told)
        near.sendall(frame(Refused(f"fork failed: {error.strerror}")))
        _close(sockets)
        return None
    if between == 0:
        own = _be_between(sockets, told)
        random.setstate(draws)
        for each in (near, *sockets):
            if each is not own:
                each.detach()
        _become_copy(own, {*opened, pids, told}, files)
        return own
    os.close(told)
    _close(sockets)
    near.sendall(frame(_outcome(pids, len(sockets))))
    os.waitpid(between, 0)
    proc.adopt_orphans(True)
    gc.unfreeze()
    return None


def _bare_fork() -> int:
    """Fork without the handlers of Python and of libraries, for a process that only forks in its turn and ends.

    Raises:
        OSError: there is no room for another process.
    """
    bare = getattr(_C, "_Fork", None)  # of glibc since 2.34
    if bare is None:
        return os.fork()
    pid = int(bare())
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def _outcome(pids: int, n: int) -> Forked | Refused:
    """What became of it, from what the intermediate process tells."""
    reason = _shared_memory()  # takes its time, and so does the intermediate process
    made = array.array("i")
    made.frombytes(os.read(pids, made.itemsize * (n + 1)))
    os.close(pids)
    if len(made) == n and not reason:
        return Forked(list(made))
    for pid in made:
        proc.kill(pid)
    return Refused(reason or "fork failed: there is no room for so many processes")


def _be_between(sockets: Sequence[socket.socket], told: int) -> socket.socket:
    """In the intermediate process: fork and end. Returns only in the copies.

    Its session is not that of the process that is copied, which may be ended, with its session, before a copy comes to
    make one of its own.
    """
    os.setsid()
    made = array.array("i")
    try:
        for each in sockets:
            pid = os.fork()
            if pid == 0:
                return each
            made.append(pid)
        os.write(told, made.tobytes())
    except OSError:
        for pid in made:
            proc.kill(pid)
    os._exit(0)


def _become_copy(own: socket.socket, opened: set[int], files: Sequence[OpenFile]) -> None:
    os.setsid()
    proc.adopt_orphans(True)
    for number in opened - {0, 1, 2, own.fileno(), *(file.number for file in files)}:
        os.close(number)
    for file in files:  # a position that is shared would move for all
        again = os.open(f"/proc/self/fd/{file.number}", os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(again, file.position, os.SEEK_SET)
        os.dup2(again, file.number, inheritable=os.get_inheritable(file.number))
        os.close(again)


def _seekable(number: int) -> bool:
    mode = os.fstat(number).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()
