"""Making the manifest: which neighbouring releases, and which hunks between them, are tasks that tests can judge.

Nothing is believed that was not run: a task is kept only if the tests fail and pass as it says, before and after its
gold patch, twice. Hunks are tried in the order of their hashes, so that the same packages always give the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, structs

from palaestra.envs.swe import hunks, index
from palaestra.envs.swe.hunks import Hunk
from palaestra.envs.swe.index import Pin
from palaestra.envs.swe.manifest import Entry, HunkName, Manifest, Package, Release, Requirement, ranges
from palaestra.envs.swe.notes import section
from palaestra.envs.swe.packages import RUNNER, Source
from palaestra.envs.swe.releases import LIMITS, code, command, environment, site
from palaestra.envs.swe.running import Run, Sandboxes, Suite
from palaestra.envs.swe.tree import Tree, below, read_sdist
from palaestra.errors import DataError
from palaestra.files import cache_root

PYTHON = "3.11"


class Choice(Struct, frozen=True, forbid_unknown_fields=True):
    """Which tasks are wanted."""

    per_pair: int = 3
    """Hunk tasks from two neighbouring releases, at most."""
    tries: int | None = None
    """Hunks of two neighbouring releases that are tried, at most; `None`: as many as the package says."""
    most_failing: int = 5
    """Tests that a hunk may break."""
    most_failing_release: int = 30
    """Tests that a release may have to make pass."""
    least_changed: int = 2
    """Lines of a hunk that differ and are not blank."""
    most_changed_release: int = 600
    """Lines of a release's gold patch."""
    least_passing: int = 20
    """Tests that must pass in a release to make tasks of it."""


Say = Callable[[str], None]


def pin(project: str, file: str) -> Pin:
    """A file on the index, with the hash that it has there now.

    Raises:
        DataError: there is no such file.
    """
    files = index.listing(project)
    if file not in files:
        raise DataError(f"the package index has no {file}")
    return Pin(project, file, files[file][1])


def empty() -> Manifest:
    """A manifest without packages; pytest and what it needs are pinned.

    Raises:
        DataError: the index cannot be reached.
    """
    return Manifest(PYTHON, tuple(_requirement(file) for file in RUNNER), ())


def joined(manifest: Manifest, packages: Iterable[Package]) -> Manifest:
    """The manifest with these packages, each instead of the one by its name; those without tasks are left out."""
    both = {package.project: package for package in (*manifest.packages, *packages)}
    return structs.replace(manifest, packages=tuple(both[name] for name in sorted(both) if both[name].tasks))


def make_package(source: Source, manifest: Manifest, choice: Choice, sandboxes: Sandboxes, say: Say) -> Package:
    """A package with its tasks.

    Args:
        source: which.
        manifest: what it is for: only its runner is looked at.
        choice: which tasks are wanted.
        sandboxes: where tests run.
        say: told what is found, a line at a time.

    Raises:
        DataError: a file is not on the index, or damaged.
        SandboxError: there is no sandbox to run tests in.
    """
    package = Package(
        project=source.project,
        licence=source.licence,
        split=source.split,
        source=source.source,
        tests=source.tests,
        path=source.path,
        notes=source.notes,
        requires=tuple(_requirement(file) for file in source.requires),
        releases=tuple(_release(source.project, version) for version in source.versions),
    )
    bench = Bench(package, Path(site(manifest, package, cache_root())), sandboxes)
    choice = choice if choice.tries is not None else structs.replace(choice, tries=source.tries)
    found: list[Entry] = []
    passing: dict[str, frozenset[str]] = {}
    for before, after in zip(source.versions, source.versions[1:], strict=False):
        pair = Pair(bench, before, after, choice)
        if pair.passing:
            passing[after] = pair.passing
            found += pair.tasks(say)
    used = {version for task in found for version in (task.before, task.after)}
    return _with_tests(package, found, {v: passed for v, passed in passing.items() if v in used}, used)


class Bench:
    """Runs the tests of one package."""

    def __init__(self, package: Package, site: Path, sandboxes: Sandboxes) -> None:
        self.package, self._sandboxes = package, sandboxes
        self._suite = Suite(site=site, command=command(package), env=environment(package), limits=LIMITS, seconds=600.0)
        self._trees: dict[str, Tree] = {}

    def tree(self, version: str) -> Tree:
        """The files of a version."""
        if version not in self._trees:
            self._trees[version] = read_sdist(index.fetch(self.package.release(version).pin))
        return self._trees[version]

    def run(self, tree: Mapping[str, bytes]) -> Run:
        """All tests that lie in a tree, over the code in it."""
        return self._sandboxes.run(self._suite, tree)

    def passed_twice(self, tree: Mapping[str, bytes]) -> frozenset[str]:
        """The tests that passed in both of two runs."""
        return self.run(tree).passed & self.run(tree).passed


class Pair:
    """Two neighbouring releases, under the tests of the later one."""

    def __init__(self, bench: Bench, before: str, after: str, choice: Choice) -> None:
        self.bench, self.package, self.choice = bench, bench.package, choice
        self.before, self.after = before, after
        self.old, self.new = bench.tree(before), bench.tree(after)
        self.tests = below(self.new, self.package.tests)
        passing = bench.passed_twice(self.new)
        self.passing = passing if len(passing) >= choice.least_passing else frozenset[str]()

    def tasks(self, say: Say) -> list[Entry]:
        """All tasks that they give."""
        say(f"{self.package.project} {self.before} -> {self.after}: {len(self.passing)} tests pass")
        found: list[Entry] = []
        if whole := self._release_task():
            say(f"  {whole.name}: {len(whole.fail_to_pass)} tests to pass, {len(whole.dropped)} dropped")
            found.append(whole)
        tried = 0
        for name, hunk in self._hunks():
            if tried == self.choice.tries or sum(task.hunk is not None for task in found) == self.choice.per_pair:
                break
            tried += 1
            if task := self._hunk_task(name, hunk):
                say(f"  {task.name}: {name.file}, {len(task.fail_to_pass)} tests to pass")
                found.append(task)
        say(f"  {tried} hunks tried")
        return found

    def _release_task(self) -> Entry | None:
        old, new = code(self.package, self.old), code(self.package, self.new)
        try:
            gold = hunks.patch(old, new)
        except ValueError:
            return None
        changed = sum(line[:1] in "+-" and line[:3] not in ("+++", "---") for line in gold.splitlines())
        notes = section(self.new.get(self.package.notes, b"").decode("utf-8", "replace"), self.after)
        if not notes or not 0 < changed <= self.choice.most_changed_release:
            return None
        rest = {path: content for path, content in self.old.items() if not below({path: content}, self.package.tests)}
        solved = {path: content for path, content in rest.items() if path not in old} | new
        name = f"{self.package.project}-{self.before}-{self.after}"
        most = self.choice.most_failing_release
        return self._judged(name, None, rest | self.tests, solved | self.tests, most)

    def _hunk_task(self, name: HunkName, hunk: Hunk) -> Entry | None:
        content = hunks.revert(hunks.text(self.new[name.file]), hunk)
        if name.file.endswith(".py") and not _compiles(content):
            return None
        task = f"{self.package.project}-{self.after}-hunk-{name.sha256[:8]}"
        return self._judged(task, name, {**self.new, name.file: content.encode()}, None, self.choice.most_failing)

    def _judged(self, name: str, hunk: HunkName | None, base: Tree, solved: Tree | None, most: int) -> Entry | None:
        """The task, if tests tell its base from its solution; `solved` is `None` where that is the later release."""
        first = self.bench.run(base)
        if not first.outcomes or not 0 < len(self.passing - first.passed) <= most:
            return None
        second = self.bench.run(base)
        gold = self.passing if solved is None else self.bench.passed_twice(solved)
        failing = (self.passing - first.passed - second.passed) & gold
        unstable = first.passed ^ second.passed
        dropped = (self.passing & unstable) | (self.passing - gold)
        if not second.outcomes or not failing or len(self.passing - failing - dropped) < self.choice.least_passing:
            return None
        seconds = float(max(180, min(600, round(100 * max(first.seconds, second.seconds), -1))))
        return Entry(name, self.before, self.after, tuple(sorted(failing)), hunk, tuple(sorted(dropped)), seconds)

    def _hunks(self) -> list[tuple[HunkName, Hunk]]:
        """All hunks between the two that could be tasks, in the order in which they are tried."""
        return sorted(self._all_hunks(), key=lambda found: found[0].sha256)

    def _all_hunks(self) -> Iterator[tuple[HunkName, Hunk]]:
        old, new = code(self.package, self.old), code(self.package, self.new)
        for file in sorted({*old} & {*new}):
            if old[file] == new[file]:
                continue
            try:
                both = hunks.text(old[file]), hunks.text(new[file])
            except ValueError:
                continue
            for number, hunk in enumerate(hunks.hunks(*both)):
                if hunk.changed >= self.choice.least_changed:
                    yield HunkName(file, number, hunk.sha256), hunk


def _requirement(file: str) -> Requirement:
    name, _, root = file.partition(":")
    return Requirement(pin(name.partition("-")[0], name), root)


def _release(project: str, version: str) -> Release:
    ends = f"-{version}.tar.gz"
    files = [name for name in index.listing(project) if name.endswith(ends)]
    if len(files) != 1:
        raise DataError(f"the package index has no source distribution of {project} {version}")
    return Release(version, pin(project, files[0]))


def _with_tests(
    package: Package, tasks: Sequence[Entry], passing: Mapping[str, frozenset[str]], used: set[str]
) -> Package:
    """The package with its tasks, the test ids of all its versions, and who fails in which."""
    known: dict[str, list[str]] = {}
    for id in sorted(set().union(*passing.values())):
        file, _, name = id.partition("::")
        known.setdefault(file, []).append(name)
    full = structs.replace(package, known={file: tuple(names) for file, names in known.items()}, tasks=tuple(tasks))
    releases = [
        structs.replace(release, failing=_failing(full.ids, passing.get(release.version)))
        for release in package.releases
        if release.version in used
    ]
    return structs.replace(full, releases=tuple(releases))


def _failing(ids: Sequence[str], passed: frozenset[str] | None) -> tuple[tuple[int, int], ...]:
    if passed is None:  # the earliest: its own tests judge nothing
        return ()
    return ranges(number for number, id in enumerate(ids) if id not in passed)


def _compiles(content: str) -> bool:
    try:
        compile(content, "reverted", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True
