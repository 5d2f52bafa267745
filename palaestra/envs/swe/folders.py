"""Folders of the user's with files that strangers wrote: looked over before anything of them is used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from palaestra.errors import DataError

MOST_FILES = 20_000
MOST_BYTES = 512 * 1024 * 1024
"""Of all files of a folder together, holes included."""


def open_folder(given: object, what: str) -> Path:
    """The folder that a parameter names, absolute.

    Raises:
        DataError: it names none.
    """
    if not isinstance(given, str | Path) or not str(given):
        raise DataError(f"{what} is a folder, not {str(given)[:200]!r}")
    try:
        folder = Path(given).expanduser().absolute()
        if folder.is_dir():
            return folder
        problem = "does not exist" if not folder.exists() else "is no folder"
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"cannot be read: {error}"
    raise DataError(f"{str(given)[:500]!r} {problem}; {what} is wanted there")


def check_folder(folder: Path, *, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES) -> None:
    """Look over all that is in a folder.

    Raises:
        DataError: it is no folder, or holds a link that leads out of it, a device or the like, or more than the limits.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    files, size, root = 0, 0, folder.resolve()
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            raise DataError(f"cannot read {here}: {error.strerror}") from None
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            files, size = files + 1, size + found.st_size
            if files > most_files or size > most_bytes:
                raise DataError(
                    f"{folder} holds more than {most_files} files or {most_bytes} bytes, which is the limit"
                )
            if stat.S_ISDIR(found.st_mode):
                pending.append(Path(entry.path))
            else:
                _check_entry(Path(entry.path), found.st_mode, root)


def _check_entry(path: Path, mode: int, root: Path) -> None:
    if stat.S_ISLNK(mode):
        target = Path(os.path.normpath(path.parent.resolve() / os.readlink(path)))
        if not target.is_relative_to(root):
            raise DataError(f"{str(path)[:500]!r} is a link that leads out of {root}")
    elif not stat.S_ISREG(mode):
        raise DataError(f"{str(path)[:500]!r} is neither a file nor a folder")


def read_text(path: Path, most: int) -> str:
    """The text of a plain file that is no link.

    Raises:
        DataError: it is not there, is something else, holds more than `most` bytes, or is not UTF-8.
    """
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is no plain file")
    try:
        with open(path, "rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise DataError(f"{path} has more than {most} bytes, which is the limit")
        return content.decode()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
