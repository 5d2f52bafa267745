"""Removing a tree that something hostile made: deep beyond every limit, or of folders that nobody may enter."""

from __future__ import annotations

import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it; nothing is followed out of it. One that is gone is no error.

    Folders are lifted to the top before they are emptied, so that depth costs neither stack nor descriptors. Several
    may do it at once.

    Raises:
        OSError: it is no folder, or something in it cannot be removed.
    """
    try:
        top = _enter(str(path), None)
    except FileNotFoundError:
        return
    try:
        mark = secrets.token_hex(8)
        fresh = (f".{mark}-{number}" for number in itertools.count())
        while names := os.listdir(top):
            for name in names:
                with suppress(FileNotFoundError):  # somebody else was faster; what is left comes with the next round
                    _remove(top, name, fresh)
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        path.rmdir()


def _remove(top: int, name: str, fresh: Iterator[str]) -> None:
    """Remove one entry of the top; folders in it come to the top, under fresh names."""
    if not _is_folder(top, name):
        return os.unlink(name, dir_fd=top)
    folder = _enter(name, top)
    try:
        for inner in os.listdir(folder):
            if _is_folder(folder, inner):
                os.close(_enter(inner, folder))  # its own rights decide whether it can be moved
                os.rename(inner, next(fresh), src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _enter(name: str, folder: int | None) -> int:
    """A descriptor of a folder, after its owner was given all rights on it."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)
