"""A process between this one and what it forks: one that shares its memory, does something in it, and ends.

Whoever loses its parent is given to the nearest process that adopts orphans. So what the process in between forks has
that for a parent, and not this process, as soon as the one in between has ended.

It is made as `vfork` makes processes: this process stands still meanwhile, no memory is copied, and none has to be
given back. What it forks by `os.fork` is therefore a copy of this process, with every handler run for it that libraries
have for forks, and costs one copy of the page tables rather than two. Forking aside this is what `posix_spawn` does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_CLONE_VM, _CLONE_VFORK = 0x100, 0x4000
_GAP = 1 << 14
"""Bytes of the stack from what is in use here to where the process between begins; far more than a call of C takes."""

_Entry = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_Note = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_C = ctypes.PyDLL(None, use_errno=True)
_C.clone.argtypes = [_Entry, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
_C.dl_iterate_phdr.argtypes = [_Note, ctypes.c_void_p]


def run_between(work: Callable[[], None]) -> None:
    """Have `work` done, to the variables of this process, by another one, and wait for the end of that.

    What `work` forks lives on inside of it, on the same stack, and must never return from it. Only for the main thread
    of a process that has no other.

    Raises:
        OSError: there is no room for another process.
        BaseException: what `work` raised.
    """
    raised: list[BaseException] = []

    def enter(_: int | None) -> int:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        return 0

    entry = _Entry(enter)
    pid = _C.clone(entry, (_stack_in_use() - _GAP) & ~0xF, _CLONE_VM | _CLONE_VFORK | signal.SIGCHLD, None)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.waitpid(pid, 0)[1]:  # it was killed in the midst of something in our memory
        sys.stderr.write("the process that was to fork this one was killed\n")
        sys.stderr.flush()
        os._exit(1)
    if raised:
        raise raised[0]


def _stack_in_use() -> int:
    """An address about where the stack ends in a function of C that is called from here."""
    found = [0]

    def note(info: int | None, _size: int, _data: int | None) -> int:
        found[0] = info or 0  # a variable of the function's own
        return 1

    _C.dl_iterate_phdr(_Note(note), None)
    return found[0]
