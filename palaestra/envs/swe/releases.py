"""Tasks from release histories: composed at load time from two source distributions, as the manifest says.

A *release* task is a version as released, to be brought to where the next version's tests pass: its notes are the
problem statement, and its tests stay hidden. A *hunk* task is a version with one hunk of its history taken back, to
be mended: the tests that fail are there to be seen. The gold patch is what the maintainers wrote.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from palaestra.envs.swe import hunks, index, statement
from palaestra.envs.swe.index import Pin
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.manifest import Entry, Manifest, Package, Requirement, manifest
from palaestra.envs.swe.notes import section
from palaestra.envs.swe.options import NAMES
from palaestra.envs.swe.suite import ENV
from palaestra.envs.swe.tree import Tree, below, lay, read_folder, read_sdist, read_wheel, within
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, DataError, UnknownNameError
from palaestra.files import cache_root
from palaestra.sandboxes.spec import MIB, Limits

REPOSITORY = "/work/repo"
SITE = "/work/site"
LIMITS = Limits(cpus=1.0, memory=1024 * MIB, pids=128, disk=256 * MIB, seconds=120.0)
KINDS = ("release", "hunk")
COMMAND = (
    *("python3", "-S", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "--rootdir=."),
    "--continue-on-collection-errors",
)
"""Without the machine's own packages (`-S`) and without the coverage options of the package's developers."""


class Composition(Struct, frozen=True):
    """What a task is made of."""

    base: Tree
    """The repository as the agent finds it."""
    tests: Tree
    """The tests that judge."""
    gold: str
    """The patch that solves it."""
    problem: str
    """The problem statement."""


def load_tasks(split: str, params: dict[str, Any]) -> TaskSuite:
    """The tasks of a split, mixed by a hash of their names. Nothing is downloaded before a task is begun.

    Args:
        split: `train`, `validation` or `test`; every package is in one of them.
        params: any of `Options`; `kind`, to have only those of that kind, `release` or `hunk`; `packages`, names in a
            list, to have only theirs; `image` with Python 3.11 and git, which the docker back end needs.

    Raises:
        ConfigError: another parameter, or `packages` that the split does not have.
        UnknownNameError: no such split or kind.
    """
    if split not in SPLITS:
        raise UnknownNameError("split of swe/releases", split, SPLITS)
    if others := sorted(set(params) - {"kind", "packages", "image", *NAMES}):
        known = ", ".join(("kind", "packages", "image", *NAMES))
        raise ConfigError(f"swe/releases takes no {', '.join(others)}; it takes {known}")
    tasks = _chosen(split, params)
    options = {name: value for name, value in params.items() if name in ("image", *NAMES)}
    return TaskSuite("swe/releases", split, len(tasks), lambda index: _task(*tasks[index], options))


def _chosen(split: str, params: Mapping[str, Any]) -> list[tuple[Package, Entry]]:
    tasks = manifest().tasks(split)
    if (kind := params.get("kind")) is not None:
        if kind not in KINDS:
            raise UnknownNameError("kind of swe/releases", str(kind)[:80], KINDS)
        tasks = [(package, task) for package, task in tasks if task.kind == kind]
    if (names := params.get("packages")) is not None:
        known = {package.project for package, _ in manifest().tasks(split)}
        if not isinstance(names, list | tuple) or not names or not set(map(str, names)) <= known:
            raise ConfigError(f"packages of swe/releases:{split} are some of {', '.join(sorted(known))}")
        tasks = [(package, task) for package, task in tasks if package.project in names]
    return sorted(tasks, key=lambda found: hashlib.blake2b(found[1].name.encode()).digest())


def _task(package: Package, task: Entry, options: Mapping[str, Any]) -> Task:
    return Task(
        env=ENV,
        name=task.name,
        split=package.split,
        params={"format": "releases", "name": task.name, **options},
        kind=task.kind,
    )


def read_instance(params: Mapping[str, Any]) -> Instance:
    """The instance of the task `params["name"]` of the manifest, in the image `params["image"]`, if there is one.

    Raises:
        UnknownNameError: there is no such task.
        DataError: its source distributions cannot be had or are damaged.
        PalaestraError: the cache cannot be written.
    """
    name = params.get("name")
    if not isinstance(name, str):
        raise DataError(f"name of a task of swe/releases is a string, not {str(name)[:80]!r}")
    image = params.get("image", "")
    if not isinstance(image, str):
        raise DataError(f"image of a task of swe/releases is a string, not {str(image)[:80]!r}")
    return structs.replace(_instance(name, cache_root()), image=image)


@lru_cache(maxsize=256)
def _instance(name: str, cache: Path) -> Instance:
    package, task = manifest().find(name)
    return instance(manifest(), package, task, cache)


def instance(manifest: Manifest, package: Package, task: Entry, cache: Path) -> Instance:
    """The instance of a manifest's task, with its folders in `cache`.

    Raises:
        DataError: as `read_instance`.
    """
    made = compose(package, task)
    return Instance(
        name=task.name,
        format="releases",
        problem=made.problem,
        repository=REPOSITORY,
        env=environment(package),
        limits=LIMITS,
        files={
            REPOSITORY: _kept(made.base, cache, task.name),
            SITE: site(manifest, package, cache),
        },
        test_files={REPOSITORY: _kept(made.tests, cache, f"{package.project}-{task.after}-tests")},
        test_paths=package.tests,
        test_command=command(package),
        fail_to_pass=tuple(sorted(task.fail_to_pass)),
        pass_to_pass=package.pass_to_pass(task),
        gold_patch=made.gold,
        test_seconds=task.seconds,
        licence=package.licence,
        source=f"{package.project} {task.before} and {task.after} on the package index",
    )


def compose(package: Package, task: Entry) -> Composition:
    """What a task is made of, from the source distributions of its two versions.

    Raises:
        DataError: as `read_instance`, or they do not hold what the manifest says.
    """
    before, after = (release_tree(package, version) for version in (task.before, task.after))
    tests = below(after, package.tests)
    shown = " ".join(("python3", "-m", "pytest", *package.tests))
    if task.hunk is None:
        notes = section(after[package.notes].decode("utf-8", "replace"), task.after) if package.notes in after else ""
        if not notes:
            raise DataError(f"{package.project} {task.after} has no notes in {package.notes}; the manifest is wrong")
        gold = hunks.patch(code(package, before), code(package, after))
        return Composition(before, tests, gold, statement.for_release(package.project, task.before, notes, shown))
    file = task.hunk.file
    broken = dict(after)
    broken[file] = _reverted(package, task, before, after)
    gold = hunks.patch({file: broken[file]}, {file: after[file]})
    problem = statement.for_hunk(package.project, task.after, tests, sorted(task.fail_to_pass), shown)
    return Composition(broken, tests, gold, problem)


def release_tree(package: Package, version: str) -> Tree:
    """The files of a version as released.

    Raises:
        DataError: as `read_instance`.
    """
    return _sdist(package.release(version).pin, cache_root())


def code(package: Package, tree: Tree) -> Tree:
    """The part of a release that is the package's code."""
    found = below(tree, package.source)
    return {path: content for path, content in found.items() if not any(within(path, t) for t in package.tests)}


def environment(package: Package) -> dict[str, str]:
    """Variables with which its tests run alike everywhere."""
    return {
        "PYTHONPATH": f"{REPOSITORY}/{package.path}".rstrip("/") + f":{SITE}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def command(package: Package) -> tuple[str, ...]:
    """Runs all of its tests."""
    return (*COMMAND, *package.tests)


def site(manifest: Manifest, package: Package, cache: Path) -> str:
    """The folder with pytest and what the package's tests import.

    Raises:
        DataError: as `read_instance`.
    """
    tree: Tree = {}
    for requirement in (*manifest.runner, *package.requires):
        tree |= _required(requirement)
    return _kept(tree, cache, "site")


def pins(manifest: Manifest, tasks: Iterable[tuple[Package, Entry]]) -> list[Pin]:
    """All files from the index that these tasks need, each once."""
    found = [requirement.pin for requirement in manifest.runner]
    for package, task in tasks:
        found += [requirement.pin for requirement in package.requires]
        found += [package.release(version).pin for version in (task.before, task.after)]
    return list(dict.fromkeys(found))


def fetch_sources(
    tasks: Iterable[tuple[Package, Entry]], on_file: Callable[[int, int, str], None] | None = None
) -> None:
    """Download what these tasks of the shipped manifest need and the cache lacks.

    Raises:
        DataError: as `read_instance`.
    """
    index.fetch_all(pins(manifest(), tasks), on_file)


def _required(requirement: Requirement) -> Tree:
    path = index.fetch(requirement.pin)
    tree = read_wheel(path) if requirement.pin.file.endswith(".whl") else read_sdist(path)
    root = requirement.root.rstrip("/")
    if not root:
        return tree
    return {inner.removeprefix(root + "/"): content for inner, content in below(tree, [root]).items()}


@lru_cache(maxsize=8)
def _sdist(pin: Pin, cache: Path) -> Tree:
    return read_sdist(index.fetch(pin))


def _reverted(package: Package, task: Entry, before: Tree, after: Tree) -> bytes:
    """The file of the task's hunk in the later version, with the hunk as in the earlier one."""
    assert task.hunk is not None
    file = task.hunk.file
    try:
        new = hunks.text(after[file])
        hunk = hunks.hunks(hunks.text(before[file]), new)[task.hunk.index]
    except (KeyError, IndexError, ValueError):
        hunk = None
    if hunk is None or hunk.sha256 != task.hunk.sha256:
        raise DataError(f"{package.project} {task.after}: hunk {task.hunk.index} of {file} is not the manifest's")
    return hunks.revert(new, hunk).encode()


def _kept(tree: Tree, cache: Path, name: str) -> str:
    """A folder of the cache with exactly these files; made anew where somebody changed them."""
    digest = hashlib.blake2b(msgspec.json.encode(sorted(_hashes(tree))), digest_size=8).hexdigest()
    folder = cache / "swe" / "trees" / f"{name}-{digest}"
    if folder.is_dir() and read_folder(folder) != tree:
        shutil.rmtree(folder, ignore_errors=True)
    return str(lay(tree, folder))


def _hashes(tree: Tree) -> Iterable[tuple[str, str]]:
    return ((path, hashlib.blake2b(content, digest_size=16).hexdigest()) for path, content in tree.items())
