"""A filter of system calls for code in the sandbox: it may have threads, but no processes, and no fresh namespaces.

The program is classic BPF, as seccomp(2) describes it; numbers are those of Linux's tables of system calls.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
"""Offsets in the data that a filter sees; the last is the low half of the first argument."""
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
"""From here on the numbers of x86-64's second set of system calls."""

_CALLS: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    # fork, vfork, unshare, setns, ptrace, bpf, userfaultfd, perf_event_open, add_key, request_key, keyctl
    "x86_64": (0xC000003E, 56, 435, (57, 58, 272, 308, 101, 321, 323, 298, 248, 249, 250, 425)),
    "aarch64": (0xC00000B7, 220, 435, (97, 268, 117, 280, 282, 241, 217, 218, 219, 425)),
}
"""Machine -> its mark, clone, clone3, and what is refused altogether (io_uring_setup is the last of them)."""


def program() -> bytes | None:
    """The filter for this machine; `None` where its numbers are not known here."""
    if platform.machine() not in _CALLS:
        return None
    mark, clone, clone3, refused = _CALLS[platform.machine()]
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, mark),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        # The C library makes its threads by clone where there is no clone3, whose arguments a filter cannot see.
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for number in refused:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    lines += [
        (_EQUAL, 1, 0, clone),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _ARGUMENT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
