"""How a worker forks itself, and when that is right."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from palaestra.envs.isolation import proc
from palaestra.envs.isolation.between import run_between
from palaestra.envs.isolation.lazyloop import LazyLoop
from palaestra.envs.isolation.wire import Forked, Refused, frame

_HARMLESS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_WRITABLE_SHARED = (b" rw-s ", b" rwxs ", b" -w-s ", b" -wxs ")
"""As /proc has it. A file's name that holds one of these is not worth the time that it takes to tell."""
MOST_GENERATIONS = 64
"""Copies of copies, each of which lives on the stack of its parent, some 20 kB deeper."""
_FRAMES = 12
"""Of Python, at most, from the call that makes a copy to those of the copy's own."""
_LARGE = 1 << 16
"""Bytes, more than any of malloc's quick lists holds and fewer than it asks the kernel for."""

_generation = 0


class OpenFile(NamedTuple):
    """A file that a process only reads, by its number and position."""

    number: int
    position: int


def obstacle(loop: LazyLoop, known: set[int]) -> str:
    """Why a copy of this process would not be independent, or not complete; empty where it is right to fork.

    `known` files are not looked at. Where it is right, `loop` has no descriptors now.
    """
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        names = sorted(thread.name for thread in threading.enumerate())[1:]
        return f"it runs {threads} threads" + (f" ({', '.join(names[:3])})" if names else "")
    if _generation >= MOST_GENERATIONS:
        return f"it is a copy of a copy, {_generation} times over"
    if has_children():
        return "it has child processes"
    if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        return "a timer of its runs"
    if any(not task.done() for task in asyncio.all_tasks(loop)) or _has_timers(loop):
        return "tasks of its wait in the event loop"
    if not loop.rest():
        return "its event loop watches files or signals"
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


def _has_timers(loop: LazyLoop) -> bool:
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
        maps = file.read()
    if any(permissions in maps for permissions in _WRITABLE_SHARED):
        return "it shares memory that it writes to"
    return ""


def multiply(
    near: socket.socket, sockets: Sequence[socket.socket], known: set[int], live: Callable[[socket.socket], None]
) -> None:
    """Make a copy of this process for each of `sockets`, which lives by `live` and then ends, and say so on `near`.

    The copies are children of a process in between that ends at once, so that the fork server becomes their parent:
    whatever happens here later is not their concern.
    """
    opened = proc.open_files()
    others = opened - known - {each.fileno() for each in sockets}
    files = [OpenFile(number, int(_file_info(number)["pos"])) for number in sorted(others) if _seekable(number)]
    sys.stdout.flush()
    sys.stderr.flush()
    draws = random.getstate()  # Python seeds it anew in every fork

    def begin(own: socket.socket) -> None:
        random.setstate(draws)  # which lives on: it lies here and there, and freeing it would copy all those pages
        for each in (near, *sockets):
            if each is not own:
                each.detach()
        _become_copy(own, opened, files)
        live(own)

    bytearray(_LARGE)  # makes malloc sort what has been freed, or that would be done, and copied, by every copy
    gc.freeze()  # so that no collection in a copy touches, and thereby copies, everything
    proc.adopt_orphans(False)
    made: list[int] = []
    try:
        run_between(lambda: _fork_each(sockets, begin, made))
        reason = _shared_memory()
    except OSError as error:
        reason = f"fork failed: {error.strerror}"
    proc.adopt_orphans(True)
    gc.unfreeze()
    _close(sockets)
    if reason:
        for pid in made:
            proc.kill(pid)
    near.sendall(frame(Refused(reason) if reason else Forked(made)))


def _fork_each(sockets: Sequence[socket.socket], begin: Callable[[socket.socket], None], made: list[int]) -> None:
    """In the process between: fork for each of `sockets`, and put the copies' process ids into `made`.

    Its session is not that of the process that is copied, which may be ended, with its session, before a copy comes to
    make one of its own.
    """
    os.setsid()
    for each in sockets:
        pid = os.fork()
        if pid == 0:
            proc.do_and_end(partial(begin, each))
        made.append(pid)


def _become_copy(own: socket.socket, opened: set[int], files: Sequence[OpenFile]) -> None:
    global _generation
    _generation += 1
    sys.setrecursionlimit(sys.getrecursionlimit() + _FRAMES)
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
