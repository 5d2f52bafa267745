"""Files in memory: what scripted sandboxes read and write."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, field
from pathlib import Path

from palaestra.errors import SandboxPathError
from palaestra.sandboxes.spec import SandboxSpec

_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder; what is in it is in the tree under its own path."""

    mode: int = 0o755


Node = File | Link | Folder


@dataclass(slots=True)
class Tree:
    """The files of one sandbox, by absolute path."""

    spec: SandboxSpec
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """There are a root, a work folder and /tmp."""
        for folder in ("/", "/tmp"):
            self.nodes.setdefault(folder, Folder())
        self._make_folders(posixpath.normpath(self.spec.workdir))

    def copy(self) -> Tree:
        """A tree of its own with the same files."""
        return Tree(self.spec, dict(self.nodes))

    def read(self, path: str, limit: int) -> bytes:
        """See `Sandbox.read_file`."""
        node = self.nodes.get(self.resolve(path))
        if not isinstance(node, File):
            raise SandboxPathError(f"{path}: {'Is a directory' if node else 'No such file or directory'}")
        if len(node.content) > limit:
            raise SandboxPathError(f"{path}: holds more than {limit} bytes")
        return node.content

    def write(self, path: str, node: Node) -> None:
        """Put something at `path`, instead of a file or link that is there.

        Raises:
            SandboxPathError: a folder is there, or something above is none, or the disk would be full.
        """
        place = self.resolve(path, last=False)
        before = self.nodes.get(place)
        if isinstance(before, Folder) and not isinstance(node, Folder):
            raise SandboxPathError(f"{path}: Is a directory")
        if isinstance(node, File) and self.size + len(node.content) - _size(before) > self.spec.limits.disk:
            raise SandboxPathError(f"{path}: No space left on device")
        self._make_folders(posixpath.dirname(place))
        self.nodes[place] = node

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(_size, self.nodes.values()))

    def resolve(self, path: str, *, last: bool = True) -> str:
        """The absolute path without links; the `last` name may stay one.

        Raises:
            SandboxPathError: it makes no sense, or its links lead in a circle.
        """
        if not path or "\0" in path:
            raise SandboxPathError(f"{path!r} is no path")
        waiting = posixpath.join(self.spec.workdir, path).split("/")[::-1]
        place, links = "/", 0
        while waiting:
            name = waiting.pop()
            if name in ("", "."):
                continue
            place = posixpath.dirname(place) if name == ".." else posixpath.join(place, name)
            node = self.nodes.get(place)
            if isinstance(node, Link) and (last or any(waiting)):
                links += 1
                if links > _MOST_LINKS:
                    raise SandboxPathError(f"{path}: Too many levels of symbolic links")
                waiting += node.target.split("/")[::-1]
                place = "/" if node.target.startswith("/") else posixpath.dirname(place)
        return place

    def take_in(self, source: Path, target: str) -> None:
        """Copy a file or folder of this machine over what is at `target`.

        Raises:
            SandboxPathError: see `write`.
        """
        if source.is_symlink():
            self.write(target, Link(os.readlink(source)))
        elif source.is_dir():
            self.write(target, Folder(source.stat().st_mode & 0o777))
            for inner in sorted(source.iterdir()):
                self.take_in(inner, f"{target}/{inner.name}")
        else:
            self.write(target, File(source.read_bytes(), source.stat().st_mode & 0o777))

    def put_out(self, source: str, target: Path) -> None:
        """Copy a file or folder to this machine; whoever wants it elsewhere looks at its links.

        Raises:
            SandboxPathError: `source` does not exist.
        """
        place = self.resolve(source)
        if place not in self.nodes:
            raise SandboxPathError(f"{source}: No such file or directory")
        below = [path for path in sorted(self.nodes) if path == place or path.startswith(f"{place.rstrip('/')}/")]
        for path in below:
            _put(self.nodes[path], target / posixpath.relpath(path, place) if path != place else target)

    def _make_folders(self, folder: str) -> None:
        missing = []
        while folder not in self.nodes:
            missing.append(folder)
            folder = posixpath.dirname(folder)
        if not isinstance(self.nodes[folder], Folder):
            raise SandboxPathError(f"{folder}: Not a directory")
        self.nodes.update((each, Folder()) for each in reversed(missing))


def _size(node: Node | None) -> int:
    return len(node.content) if isinstance(node, File) else 0


def _put(node: Node, target: Path) -> None:
    if isinstance(node, Folder):
        target.mkdir()
    elif isinstance(node, Link):
        target.symlink_to(node.target)
    else:
        target.write_bytes(node.content)
        target.chmod(node.mode)
