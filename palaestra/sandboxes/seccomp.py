"""Filters of system calls for what runs in a sandbox.

The programs are classic BPF, as seccomp(2) describes it; numbers are those of Linux's tables of system calls.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
"""Offsets in the data that a filter sees; the last is the low half of the first argument."""
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_ALLOWED, _DENIED = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | errno.EPERM)
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
"""From here on the numbers of x86-64's second set of system calls."""

_FRESH_NAMESPACE = 0x7E020000
"""Flags of clone for namespaces of any kind."""

_MACHINES: dict[str, tuple[int, int, int]] = {"x86_64": (0xC000003E, 56, 435), "aarch64": (0xC00000B7, 220, 435)}
"""Machine -> its mark, clone, clone3."""
_REFUSED: dict[str, tuple[int, ...]] = {
    # unshare, setns, bpf, userfaultfd, perf_event_open, add_key, request_key, keyctl, io_uring_setup
    "x86_64": (272, 308, 321, 323, 298, 248, 249, 250, 425),
    "aarch64": (97, 268, 280, 282, 241, 217, 218, 219, 425),
}
_PROCESSES: dict[str, tuple[int, ...]] = {
    # fork, vfork, ptrace
    "x86_64": (57, 58, 101),
    "aarch64": (117,),
}
_MACHINERY: dict[str, tuple[int, ...]] = {
    # mount, umount2, pivot_root, chroot, open_tree to fspick, mount_setattr, open_by_handle_at, kexec_load,
    # kexec_file_load, init_module, finit_module, delete_module, reboot, swapon, swapoff, acct, quotactl, syslog,
    # sched_setaffinity
    "x86_64": (
        *(165, 166, 155, 161, 428, 429, 430, 431, 432, 433, 442, 304, 246),
        *(320, 175, 313, 176, 169, 167, 168, 163, 179, 103, 203),
    ),
    "aarch64": (
        *(40, 39, 41, 51, 428, 429, 430, 431, 432, 433, 442, 265, 104),
        *(294, 105, 273, 106, 142, 224, 225, 89, 60, 116, 122),
    ),
}


def threads_only() -> bytes | None:
    """For a program that may have threads, but no processes; `None` where this machine's numbers are not known here."""
    machine = platform.machine()
    if machine not in _MACHINES:
        return None
    refused = _REFUSED[machine] + _PROCESSES[machine]
    return _program(machine, refused, [(_ANY_BIT, 0, 1, _CLONE_THREAD), _ALLOWED, _DENIED])


def contained() -> bytes | None:
    """For any programs, but without fresh namespaces, mounts, other cores, or what else only a machine's owner does."""
    machine = platform.machine()
    if machine not in _MACHINES:
        return None
    refused = _REFUSED[machine] + _MACHINERY[machine]
    return _program(machine, refused, [(_ANY_BIT, 0, 1, _FRESH_NAMESPACE), _DENIED, _ALLOWED])


def _program(machine: str, refused: tuple[int, ...], on_clone: list[tuple[int, int, int, int]]) -> bytes:
    """A filter that refuses some calls, and clone by its flags."""
    mark, clone, clone3 = _MACHINES[machine]
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, mark),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        # The C library uses clone where there is no clone3, whose arguments a filter cannot see.
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for number in refused:
        lines += [(_EQUAL, 0, 1, number), _DENIED]
    lines += [(_EQUAL, 1, 0, clone), _ALLOWED, (_LOAD, 0, 0, _ARGUMENT), *on_clone]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
