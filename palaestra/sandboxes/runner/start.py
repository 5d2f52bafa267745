"""The beginning of a runner: it becomes who it shall be, hides itself, and serves whoever holds its stdin."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys

from palaestra.sandboxes.runner.requests import Requests

_OURS = 128
"""Descriptors from here on are this process's own."""
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36


def become(user: int, group: int, folders: list[str]) -> None:
    """Give up being root, and the folders with it."""
    import ctypes

    for folder in folders:
        os.chown(folder, user, group)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # What is inheritable has no effect without privileges, but nobody shall wonder: capset(2), version 3, nothing.
    ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))


def hide() -> None:
    """Keep processes of the same user out of this one's memory and descriptors; adopt orphans."""
    import ctypes

    library = ctypes.CDLL(None)
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError("prctl refuses")
    if os.getpid() != 1:
        library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    """Serve whoever holds stdin; the first argument says who to become, and which descriptors are shelves."""
    told = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    if "user" in told:
        user, group = told["user"]
        become(user, group, told["folders"])
    hide()
    given = {"reading": 0, "writing": 1, **told.get("shelves", {})}
    ours = {name: fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _OURS) for name, each in given.items()}
    os.closerange(3, _OURS)  # also what whoever started this process forgot to close
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, *range(3, 10)):  # so that no pipe has a number that a command's descriptor gets
        if number != null:
            os.dup2(null, number, inheritable=number < 3)
    os.set_inheritable(null, null < 3)
    runner = Requests(ours.pop("reading"), ours.pop("writing"), ours)
    runner.link.send({"id": 0, "kind": "hello", "version": 1, "python": sys.version.split()[0]})
    runner.serve()
