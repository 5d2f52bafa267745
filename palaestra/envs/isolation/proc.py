"""What Linux tells about processes: who descends from whom, how much memory each holds; and what it does for them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PROC = Path("/proc")

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def children() -> dict[int, list[int]]:
    """All processes by their parents' ids, as far as this user may see them. Costs some milliseconds."""
    found: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir(PROC):
        if name.isdigit() and (parent := _parent(name)) is not None:
            found[parent].append(int(name))
    return found


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])  # the name before it may hold anything
    except (OSError, IndexError):
        return None  # ended meanwhile


def descendants(pid: int, tree: dict[int, list[int]], but: Collection[int] = ()) -> Iterator[int]:
    """All that descends from `pid` in `tree`, without those in `but` and theirs."""
    waiting = [pid]
    while waiting:
        for child in tree.get(waiting.pop(), ()):
            if child not in but:
                yield child
                waiting.append(child)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM, pages that it shares with others included; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def kill(pid: int) -> None:
    """End a process at once; one that has ended, or is out of reach, is no error."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def open_files() -> set[int]:
    """Numbers of all open files of this process."""
    return {number for number in map(int, os.listdir("/proc/self/fd")) if _is_open(number)}  # not the listing itself


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def close_files(but: Collection[int]) -> None:
    """Close all files but those in `but`, without telling the objects that hold them."""
    for number in open_files():
        if number not in but:
            os.close(number)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans(yes: bool) -> None:
    """Whether descendants of this process that lose their parents become its children, rather than init's."""
    _prctl(_SET_CHILD_SUBREAPER, int(yes))


def do_and_end(work: Callable[[], None]) -> NoReturn:
    """Do it, and end this process as a program does that has done it."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _prctl(option: int, value: int) -> None:
    _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0)


_LIBC = ctypes.CDLL(None)
