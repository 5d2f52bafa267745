"""Tasks from release histories: made from an invented package, composed, and verified in a sandbox; and real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import invented_releases
from support.package_index import serving

from palaestra.cli.main import main
from palaestra.envs.swe import making, packages
from palaestra.envs.swe import manifest as manifests
from palaestra.envs.swe.instances import read_instance
from palaestra.envs.swe.manifest import Manifest
from palaestra.envs.swe.releases import compose, instance
from palaestra.envs.swe.tree import read_folder
from palaestra.errors import DataError, UnknownNameError
from palaestra.files import cache_root

pytestmark = pytest.mark.slow
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The manifest of the invented package, its cache filled; the index is there as long as the tests are."""
    folder = tmp_path_factory.mktemp("swe")
    with pytest.MonkeyPatch.context() as patch, serving(invented_releases.released()) as address:
        patch.setenv("PALAESTRA_CACHE", str(folder / "cache"))
        patch.setenv("PIP_INDEX_URL", address)
        patch.delenv("PIP_CERT", raising=False)
        patch.setattr(making, "RUNNER", invented_releases.RUNNER)
        patch.setattr(packages, "PACKAGES", (invented_releases.SOURCE,))
        assert main(["swe", "build", "--out", str(folder / "made.json")]) == 0
        yield folder / "made.json"


@needs_bubblewrap
def test_only_what_tests_can_judge_becomes_a_task(made: Path) -> None:
    [package] = manifests.read(made).packages
    found = {task.kind: task for task in package.tasks}
    assert len(package.tasks) == 2
    both = tuple(f"tests/test_alpha.py::test_half_is_whole[{n}]" for n in (4, 6))
    assert found["release"].name == "alpha-1.0-1.1"
    for task in package.tasks:
        assert task.fail_to_pass == both
        kept = package.pass_to_pass(task)
        assert "tests/test_alpha.py::test_no_network" in kept
        assert "tests/test_alpha.py::test_of_the_future" not in kept
        assert len(kept) == 27
        assert task.dropped == ()
    assert found["hunk"].hunk is not None
    assert found["hunk"].hunk.index == 1


@needs_bubblewrap
def test_what_the_agent_finds_and_what_judges_it(made: Path) -> None:
    read = manifests.read(made)
    for package, task in read.tasks("train"):
        found = instance(read, package, task, cache_root())
        base = read_folder(Path(found.files["/work/repo"]))
        tests = read_folder(Path(found.test_files["/work/repo"]))
        assert set(tests) == {"tests/test_alpha.py"}
        assert "pytest/__init__.py" in read_folder(Path(found.files["/work/site"]))
        assert (base["tests/test_alpha.py"] == tests["tests/test_alpha.py"]) == (task.kind == "hunk")
        assert ("Halves of even" in found.problem) == (task.kind == "release")
        assert ("def test_half_is_whole" in found.problem) == (task.kind == "hunk")
        assert found.gold_patch.startswith("diff --git a/src/")
        assert "+    if n % 2 == 0:\n" in found.gold_patch
        assert found.licence == "MIT"


@needs_bubblewrap
def test_the_oracle_solves_them_and_nothing_done_solves_none(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [task.name for _, task in manifests.read(made).tasks("train")]
    assert main(["swe", "verify", "--manifest", str(made), "--package", "alpha", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert (row["ok"], row["noop"], row["oracle"], row["fail_to_pass"]) == (True, 0, 2, 2)


@needs_bubblewrap
def test_a_manifest_that_says_something_else_is_found_out(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = made.read_text().replace("test_half_is_whole[6]", "test_half")
    (tmp_path / "wrong.json").write_text(text)
    name = manifests.read(made).packages[0].tasks[0].name
    assert main(["swe", "verify", name, "--manifest", str(tmp_path / "wrong.json")]) == 1
    told = capsys.readouterr().out
    assert "no-op: tests/test_alpha.py::test_half passes" in told
    assert "0 of 1 tasks are good" in told


@needs_bubblewrap
def test_what_somebody_changed_in_the_cache_is_made_anew(made: Path) -> None:
    read = manifests.read(made)
    package, task = read.tasks("train")[0]
    place = Path(instance(read, package, task, cache_root()).files["/work/repo"])
    before = read_folder(place)
    (place / "src/alpha/__init__.py").write_text("changed")
    (place / "more").write_text("more")
    assert read_folder(Path(instance(read, package, task, cache_root()).files["/work/repo"])) == before


@needs_bubblewrap
def test_a_hunk_that_is_not_there_is_an_error(made: Path, tmp_path: Path) -> None:
    read = manifests.read(made)
    _, task = next(found for found in read.tasks("train") if found[1].hunk)
    for old, new in (('"index": 1', '"index": 0'), ('"index": 1', '"index": 9'), ("src/alpha/__init__.py", "src/b.py")):
        (tmp_path / "m.json").write_text(made.read_text().replace(old, new))
        changed = manifests.read(tmp_path / "m.json")
        with pytest.raises(DataError, match="is not the manifest's"):
            compose(*changed.find(task.name))


@needs_bubblewrap
def test_a_package_is_replaced_and_others_are_kept(made: Path) -> None:
    read = manifests.read(made)
    [package] = read.packages
    assert making.joined(read, [package]) == read
    assert making.joined(Manifest("3.11", (), ()), read.packages).packages == read.packages


def test_what_a_task_may_not_be() -> None:
    with pytest.raises(DataError, match="is a string"):
        read_instance({"format": "releases", "name": 3})
    with pytest.raises(UnknownNameError, match="swe/releases"):
        read_instance({"format": "releases", "name": "no-such-task"})
    with pytest.raises(DataError, match="releases, harbor, swe-bench"):
        read_instance({"format": "release"})


def test_commands_refuse_what_they_do_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, error in (
        (["verify", "no-such-task"], "unknown task of swe/releases"),
        (["verify", "--package", "pars"], "did you mean 'parse'"),
        (["build", "--package", "pars", "--out", str(tmp_path / "m")], "unknown package"),
        (["verify", "--manifest", str(tmp_path / "absent")], "is no manifest"),
    ):
        assert main(["swe", *argv]) == 2
        assert error in capsys.readouterr().err
