"""The manifest that ships: complete, within its bounds, and without a line of the packages' code."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.swe import manifest as manifests
from palaestra.envs.swe.manifest import Entry, Manifest, Package, Release, manifest, ranges
from palaestra.envs.swe.packages import PACKAGES
from palaestra.envs.swe.releases import pins
from palaestra.envs.tasks import SPLITS, load_suite
from palaestra.errors import ConfigError, DataError, UnknownNameError

TASKS = [(package, task) for package in manifest().packages for task in package.tasks]
PERMISSIVE = {"MIT", "BSD-3-Clause", "Apache-2.0", "BSD-2-Clause"}


def test_there_are_tasks_of_many_packages_in_every_split() -> None:
    assert len(TASKS) >= 30
    assert len(manifest().packages) >= 4
    for split in SPLITS:
        assert len({task.kind for _, task in manifest().tasks(split)}) == 2
    assert len({task.name for _, task in TASKS}) == len(TASKS)


@pytest.mark.parametrize(("package", "task"), TASKS, ids=[task.name for _, task in TASKS])
def test_a_task_names_what_its_package_has(package: Package, task: Entry) -> None:
    passing = set(package.passing(task.after))
    assert task.fail_to_pass
    assert set(task.fail_to_pass) <= passing
    assert set(task.dropped) <= passing
    assert not set(task.fail_to_pass) & set(task.dropped)
    kept = package.pass_to_pass(task)
    assert len(kept) >= 20
    assert not set(kept) & {*task.fail_to_pass, *task.dropped}
    assert set(kept) | {*task.fail_to_pass, *task.dropped} == passing
    versions = [release.version for release in package.releases]
    assert versions.index(task.before) < versions.index(task.after)
    if task.hunk is not None:
        assert len(task.fail_to_pass) <= 5
        assert any(task.hunk.file == path or task.hunk.file.startswith(f"{path}/") for path in package.source)
    else:
        assert package.notes


def test_packages_are_those_that_are_described_and_may_be_used() -> None:
    described = {source.project: source for source in PACKAGES}
    assert sorted(described) == [package.project for package in manifest().packages]
    for package in manifest().packages:
        source = described[package.project]
        for field in ("licence", "split", "source", "tests", "path", "notes"):
            assert getattr(package, field) == getattr(source, field)
        assert package.licence in PERMISSIVE
        assert {release.version for release in package.releases} <= set(source.versions)
        assert all(id.partition("::")[0].startswith(tuple(package.tests)) for id in package.ids)


def test_every_file_is_pinned_once() -> None:
    files = pins(manifest(), TASKS)
    assert len({pin.file for pin in files}) == len(files)
    assert len({pin.sha256 for pin in files}) == len(files)


def test_it_is_kept_as_it_is_written() -> None:
    text = manifests.PLACE.read_text(encoding="utf-8")
    assert manifests.written(manifest()) == text
    assert len(text) < 1_000_000


def test_the_suite_has_its_tasks() -> None:
    for split in SPLITS:
        suite = load_suite(f"swe/releases:{split}")
        assert {task.name for task in suite} == {task.name for _, task in manifest().tasks(split)}
        assert all(task.params == {"format": "releases", "name": task.name} for task in suite)
        hunks = load_suite(f"swe/releases:{split}", kind="hunk", max_turns=9, image="debian")
        assert {task.kind for task in hunks} == {"hunk"}
        assert (hunks[0].params["max_turns"], hunks[0].params["image"]) == (9, "debian")
    only = load_suite("swe/releases:validation", packages=["parse"])
    assert only
    assert all(task.name.startswith("parse-") for task in only)


def test_what_the_suite_refuses() -> None:
    for params in ({"kinds": "hunk"}, {"packages": []}, {"packages": "parse"}, {"packages": ["sqlparse"]}):
        with pytest.raises(ConfigError, match="swe/releases"):
            load_suite("swe/releases:validation", **params)
    with pytest.raises(UnknownNameError, match="kind"):
        load_suite("swe/releases:train", kind="hunks")
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("swe/releases:dev")


def test_an_unknown_task_names_the_nearest() -> None:
    name = TASKS[0][1].name
    with pytest.raises(UnknownNameError, match=name):
        manifest().find(name[:-1])


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"python": "3.11", "runner": [], "packages": [{}]}'])
def test_a_file_that_is_no_manifest(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "m.json"
    place.write_bytes(content)
    with pytest.raises(DataError, match="no manifest"):
        manifests.read(place)
    with pytest.raises(DataError, match="no manifest"):
        manifests.read(tmp_path / "absent.json")


@pytest.mark.parametrize("file", ["../a", "a/b", "", ".a", "a\n"])
def test_a_pin_names_a_file_and_no_path(file: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="not a name"):
        msgspec.convert({"project": "a", "file": file, "sha256": "0" * 64}, manifests.Pin)
    with pytest.raises(msgspec.ValidationError, match="not a hash"):
        msgspec.convert({"project": "a", "file": "a", "sha256": "../x"}, manifests.Pin)


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_exactly_their_indices(indices: set[int]) -> None:
    found = ranges(indices)
    assert {index for start, stop in found for index in range(start, stop)} == indices
    assert all(first[1] < second[0] for first, second in itertools.pairwise(found))


@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_tests_that_must_pass_on_are_exact(failing: set[int], chosen: set[int]) -> None:
    names = tuple(f"test_{number}" for number in range(6))
    pin = manifests.Pin("a", "a-1.tar.gz", "0" * 64)
    package = Package(
        "a", "MIT", "train", ("a",), ("t.py",), known={"t.py": names}, releases=(Release("1", pin, ranges(failing)),)
    )
    passing = [f"t.py::{name}" for number, name in enumerate(names) if number not in failing]
    assert list(package.passing("1")) == passing
    to_pass = tuple(f"t.py::test_{number}" for number in sorted(chosen))
    kept = package.pass_to_pass(Entry("a", "0", "1", to_pass))
    assert set(kept) == set(passing) - set(to_pass)


def test_a_written_manifest_is_read_again(tmp_path: Path) -> None:
    place = tmp_path / "m.json"
    place.write_text(manifests.written(manifest()), encoding="utf-8")
    assert manifests.read(place) == manifest()
    assert isinstance(manifests.read(place), Manifest)
