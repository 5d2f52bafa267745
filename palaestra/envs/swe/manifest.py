"""The manifest of the suite made from release histories: which packages, which versions, which tests, which hunks.

It holds names, versions, hashes and test ids, and no line of any package. What a task is made of is read at load time
from the packages' source distributions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path

import msgspec
from msgspec import Struct

from palaestra.envs.swe.index import Pin
from palaestra.errors import DataError, UnknownNameError

PLACE = Path(__file__).with_name("releases.json")

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of indices."""


class Requirement(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pure-Python package that the tests import."""

    pin: Pin
    """A wheel or a source distribution."""
    root: str = ""
    """The folder in it that goes onto the path; empty: all of it."""


class Release(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version of a package."""

    version: str
    """As on the index."""
    pin: Pin
    """Its source distribution."""
    failing: Ranges = ()
    """Indices into `Package.ids` of those tests that do not pass (or do not exist) in this version as released."""


class HunkName(Struct, frozen=True, forbid_unknown_fields=True):
    """A hunk of the difference between two releases."""

    file: str
    """Its path in the later one."""
    index: int
    """From the top of the file."""
    sha256: str
    """Of its body."""


class Entry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One task."""

    name: str
    """Unique in the manifest."""
    before: str
    """The earlier version."""
    after: str
    """The later version, whose tests judge."""
    fail_to_pass: tuple[str, ...]
    """Ids of the tests that fail now and must pass."""
    hunk: HunkName | None = None
    """What is taken back in `after`; `None`: the working tree is `before` as released."""
    dropped: tuple[str, ...] = ()
    """Ids of tests that pass in `after` and yet say nothing here: they fail with the gold patch, or come and go."""
    seconds: float = 180.0
    """That the tests may take: a hundred times what they took, but at least three and at most ten minutes."""

    @property
    def kind(self) -> str:
        """`release` or `hunk`."""
        return "hunk" if self.hunk else "release"


class Package(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """One package and its tasks."""

    project: str
    """Its name on the index."""
    licence: str
    """SPDX expression, from its metadata."""
    split: str
    """All of its tasks are in this one."""
    source: tuple[str, ...]
    """Folders and files that are its code: what a solution changes."""
    tests: tuple[str, ...]
    """Folders and files that are its tests."""
    path: str = ""
    """Folder in it that is put onto Python's path."""
    notes: str = ""
    """The file with its release notes."""
    requires: tuple[Requirement, ...] = ()
    """What its tests import."""
    releases: tuple[Release, ...] = ()
    """From the earliest."""
    known: dict[str, tuple[str, ...]] = {}
    """File of tests -> what follows `::` in the ids of its tests; over all releases."""
    tasks: tuple[Entry, ...] = ()
    """See `Entry`."""

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """All test ids of `known`, in its order."""
        return tuple(f"{file}::{name}" for file, names in self.known.items() for name in names)

    def release(self, version: str) -> Release:
        """The release of that version.

        Raises:
            DataError: the manifest has none.
        """
        for release in self.releases:
            if release.version == version:
                return release
        raise DataError(f"the manifest has no {self.project} {version}")

    def passing(self, version: str) -> tuple[str, ...]:
        """Ids of the tests that pass in that version as released."""
        failing = {index for start, stop in self.release(version).failing for index in range(start, stop)}
        return tuple(id for index, id in enumerate(self.ids) if index not in failing)

    def pass_to_pass(self, task: Entry) -> tuple[str, ...]:
        """Ids of the tests that pass before and after the task, sorted."""
        return tuple(sorted({*self.passing(task.after)} - {*task.fail_to_pass, *task.dropped}))


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    python: str
    """Minor version of Python that the test ids were found with."""
    runner: tuple[Requirement, ...]
    """pytest and what it needs."""
    packages: tuple[Package, ...]
    """Sorted by name."""

    def find(self, name: str) -> tuple[Package, Entry]:
        """The task of that name, and its package.

        Raises:
            UnknownNameError: there is none.
        """
        for package in self.packages:
            for task in package.tasks:
                if task.name == name:
                    return package, task
        raise UnknownNameError("task of swe/releases", name, (t.name for p in self.packages for t in p.tasks))

    def tasks(self, split: str) -> list[tuple[Package, Entry]]:
        """The tasks of a split, in the order of the manifest."""
        return [(package, task) for package in self.packages if package.split == split for task in package.tasks]


@cache
def manifest() -> Manifest:
    """The manifest that ships with the package."""
    return read(PLACE)


def read(path: Path) -> Manifest:
    """A manifest from a file.

    Raises:
        DataError: it cannot be read or is no manifest.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no manifest of releases: {str(error)[:300]}") from None


def written(manifest: Manifest) -> str:
    """A manifest as it is kept: JSON for reading in a diff."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode() + "\n"


def ranges(indices: Iterable[int]) -> Ranges:
    """The ranges that hold exactly these indices."""
    return tuple(_ranges(sorted(set(indices))))


def _ranges(indices: list[int]) -> Iterator[tuple[int, int]]:
    start = None
    for position, index in enumerate(indices):
        if start is None:
            start = index
        if position + 1 == len(indices) or indices[position + 1] != index + 1:
            yield start, index + 1
            start = None
