"""Trees of files in memory: read out of archives that nobody vouches for, and laid into folders of this machine."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from palaestra.errors import DataError
from palaestra.files import cannot_write

Tree = dict[str, bytes]
"""Path with `/`, relative, without `.` and `..` -> content."""

MOST_FILES = 20_000
MOST_BYTES = 256 * 1024 * 1024
"""Of all files of an archive together, unpacked."""


def read_sdist(path: Path) -> Tree:
    """The files of a `.tar.gz` source distribution, without the folder that all of them lie in.

    Links, devices and empty folders are left out, and so is compiled Python, which would be run instead of its source.

    Raises:
        DataError: it is damaged, holds a path that leaves its folder, or more than the limits.
    """
    tree: Tree = {}
    left = MOST_BYTES
    try:
        with tarfile.open(path, "r|gz") as archive:
            for number, member in enumerate(archive):
                left -= max(member.size, 0)
                _check_limits(path, number, left)
                if not member.isreg() or "__pycache__" in member.name or member.name.endswith(".pyc"):
                    continue
                tarfile.data_filter(member, "/nowhere")
                content = archive.extractfile(member)
                assert content is not None
                if inner := _below_first(_safe(member.name, path)):
                    tree[inner] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DataError(f"{path} is no source distribution, or damaged: {str(error)[:200]}; delete it") from None
    return tree


def read_wheel(path: Path) -> Tree:
    """The files of a wheel.

    Raises:
        DataError: as `read_sdist`.
    """
    tree: Tree = {}
    left = MOST_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            for number, member in enumerate(archive.infolist()):
                left -= member.file_size
                _check_limits(path, number, left)
                if not member.is_dir():
                    with archive.open(member) as content:
                        tree[_safe(member.filename, path)] = content.read(member.file_size)
    except (zipfile.BadZipFile, EOFError, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is no wheel, or damaged: {str(error)[:200]}; delete it") from None
    return tree


def below(tree: Mapping[str, bytes], prefixes: Iterable[str]) -> Tree:
    """The files that lie in one of the folders `prefixes`, or are one of them."""
    wanted = tuple(prefixes)
    return {path: content for path, content in tree.items() if any(within(path, prefix) for prefix in wanted)}


def within(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or lies below it."""
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def lay(tree: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files of a tree into `folder`, all or none; if the folder exists, it is taken as it is.

    Raises:
        PalaestraError: it cannot be written.
    """
    if folder.is_dir():
        return folder
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        write(tree, fresh)
        fresh.chmod(0o755)
        fresh.rename(folder)
    except OSError as error:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)
        if folder.is_dir():  # somebody else laid the same meanwhile
            return folder
        raise cannot_write(folder, error) from error
    return folder


def write(tree: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a tree below `folder`, over what is there."""
    for path, content in tree.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def read_folder(folder: Path) -> Tree:
    """The regular files below `folder`; links are left out."""
    return {place.relative_to(folder).as_posix(): place.read_bytes() for place in sorted(_files(folder))}


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, followlinks=False):
        for name in names:
            place = Path(parent) / name
            if place.is_file() and not place.is_symlink():
                yield place


def _check_limits(path: Path, number: int, left: int) -> None:
    if number >= MOST_FILES or left < 0:
        raise DataError(f"{path} holds more than {MOST_FILES} files or {MOST_BYTES} bytes, which is the limit")


def _safe(name: str, path: Path) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(c in name for c in "\0\\\n\r"):
        raise DataError(f"{path} holds a file by the name of {name[:200]!r}, which would leave its folder")
    return "/".join(parts)


def _below_first(name: str) -> str:
    return name.partition("/")[2]
