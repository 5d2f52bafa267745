"""Copies a tree of files inside a container: the program of `python3 -I -S -c`, with nothing but Python 3.8.

`keep SOURCE KEPT UID GID` runs as root and copies a work folder into a volume, for everybody to read, when its stdin
has a line for it, and then waits for the end of its stdin; `lend` does the same and takes the copy away before it ends;
`fill KEPT TARGET` runs as the sandbox's user and copies it from there into a work folder as soon as it is whole. What
is hostile in the tree is copied, never followed: links stay links, devices and sockets are left out, set-uid bits are
dropped. It prints how many files there were.

Python's start is most of the time that a small copy takes, so that little is imported.
"""

from __future__ import annotations

import os
import stat
import sys
import time

CHUNK = 1 << 22
_AGAIN = 0.002
"""Seconds after which it is looked again whether a volume is whole."""
MODES, FILES = b"modes", b"files"
"""In a volume: rights that would keep others from reading, by path, and the tree, which has readable ones."""


class Copy:
    """One copy of a tree."""

    def __init__(self, source: bytes, target: bytes) -> None:
        self.source, self.target = source, target
        self.count = 0
        self.modes: dict[bytes, int] = {}
        """Rights that the tree itself could not have, by path."""
        self.owner: tuple[int, int] | None = None
        """User and group of all files; `None`: who runs this."""
        self._first: dict[tuple[int, int], bytes] = {}

    def run(self) -> None:
        """Folders get their rights and times last, when nothing is written into them any more."""
        folders = [(self.source, self.target)]
        for source, target in folders:  # grows meanwhile
            with os.scandir(source) as entries:
                for entry in entries:
                    self.count += 1
                    inner = os.path.join(target, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        os.mkdir(inner, 0o700)
                        folders.append((entry.path, inner))
                    else:
                        self._entry(entry.path, inner, entry.stat(follow_symlinks=False))
        for source, target in reversed(folders):
            self._finish(target, os.stat(source), 0o500)

    def _entry(self, source: bytes, target: bytes, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            first = self._first.setdefault((status.st_dev, status.st_ino), target)
            if first != target:
                os.link(first, target, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            copy_file(source, target, status)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(target)
        else:
            return
        self._finish(target, status, 0o400)

    def _finish(self, path: bytes, status: os.stat_result, readable: int) -> None:
        """Give a copy its owner, rights and times; rights that are not `readable` are written down instead."""
        link = stat.S_ISLNK(status.st_mode)
        if self.owner:
            os.chown(path, *self.owner, follow_symlinks=False)
        if not link:
            mode = stat.S_IMODE(status.st_mode) & 0o1777
            if self.owner and mode & readable != readable:
                self.modes[os.path.relpath(path, self.target)] = mode
                mode |= readable
            os.chmod(path, mode)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy_file(source: bytes, target: bytes, status: os.stat_result) -> None:
    """Copy a regular file; its holes stay holes."""
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for begin, end in parts(reading, status):
                os.lseek(writing, begin, os.SEEK_SET)
                while begin < end:
                    sent = os.sendfile(writing, reading, begin, min(CHUNK, end - begin))
                    if not sent:
                        break
                    begin += sent
            if status.st_blocks * 512 < status.st_size:
                os.ftruncate(writing, status.st_size)
        except OSError as error:  # of a descriptor, which has no name
            error.filename = source
            raise
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def parts(file: int, status: os.stat_result) -> list[tuple[int, int]]:
    """Where in a file there is data."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return [(0, size)]
    found, at = [], 0
    while at < size:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
        except OSError:  # there is none behind
            break
        at = os.lseek(file, begin, os.SEEK_HOLE)
        found.append((begin, at))
    return found


def keep(source: bytes, kept: bytes, uid: int, gid: int) -> int:
    """Copy a work folder into a volume. A folder that does not exist is an empty one."""
    if not os.path.isdir(source):
        return 0
    os.mkdir(os.path.join(kept, FILES))
    copy = Copy(os.path.realpath(source), os.path.join(kept, FILES))
    copy.owner = (uid, gid)
    copy.run()
    os.chmod(kept, 0o755)
    modes = os.path.join(kept, MODES)
    with open(modes + b".new", "wb") as file:
        file.write(b"".join(b"%o %s\0" % (mode, path) for path, mode in copy.modes.items()))
    os.chmod(modes + b".new", 0o444)
    os.rename(modes + b".new", modes)
    return copy.count


def fill(kept: bytes, target: bytes) -> int:
    """Copy what a volume keeps into a work folder, when the last that is written into the volume is there."""
    os.stat(kept)
    while not os.path.exists(os.path.join(kept, MODES)):
        time.sleep(_AGAIN)
    copy = Copy(os.path.join(kept, FILES), target)
    copy.run()
    with open(os.path.join(kept, MODES), "rb") as file:
        modes = [each.split(b" ", 1)[::-1] for each in file.read().split(b"\0")[:-1]]
    for path, mode in sorted(modes, reverse=True):  # what is inside a folder before the folder
        os.chmod(os.path.join(target, path), int(mode, 8))
    return copy.count


def give_back(kept: bytes) -> None:
    """Take a copy out of a volume."""
    import shutil

    shutil.rmtree(os.path.join(kept, FILES), ignore_errors=True)


def main(what: str, source: str, target: str, *owner: str) -> None:
    """The command line: see the top of this file."""
    os.umask(0)
    paths = os.fsencode(source), os.fsencode(target)
    if what != "fill" and not sys.stdin.readline():
        return
    try:
        count = fill(*paths) if what == "fill" else keep(*paths, *map(int, owner))
    except OSError as error:
        sys.exit(f"{error.strerror}: {os.fsdecode(error.filename or b'?')!a}")
    print(count, flush=True)
    if what != "fill":
        sys.stdin.read()
    if what == "lend":
        give_back(paths[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
