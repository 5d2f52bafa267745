"""Which hunks become tasks, by runs that are scripted: failing tests, flaky ones, and runs that come to no end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import invented_releases
from support.package_index import serving

from palaestra.envs.swe import making
from palaestra.envs.swe.making import Bench, Choice, Pair, pin
from palaestra.envs.swe.manifest import Entry, Package, Release
from palaestra.envs.swe.running import Run

TESTS = [f"tests/test_alpha.py::test_{number}" for number in range(30)]
EVERY = dict.fromkeys(TESTS, "passed")
NOTHING: dict[str, str] = {}


class Scripted:
    """Stands for sandboxes: what came of the runs, in their order; then all tests pass."""

    def __init__(self, *runs: dict[str, str]) -> None:
        self.left, self.trees = list(runs), list[Mapping[str, bytes]]()

    def run(self, suite: Any, repository: Mapping[str, bytes], **_: Any) -> Run:
        self.trees.append(repository)
        return Run(self.left.pop(0) if self.left else EVERY, 0.01, "")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch, serving(invented_releases.released()) as address:
        patch.setenv("PALAESTRA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PIP_INDEX_URL", address)
        patch.delenv("PIP_CERT", raising=False)
        releases = tuple(Release(v, pin("alpha", f"alpha-{v}.tar.gz")) for v in ("1.0", "1.1"))
        yield Package("alpha", "MIT", "train", ("src/alpha",), ("tests",), "src", notes="CHANGES.md", releases=releases)


def failing(*numbers: int, outcome: str = "failed") -> dict[str, str]:
    return EVERY | {TESTS[number]: outcome for number in numbers}


def made(package: Package, *runs: dict[str, str], **choice: int) -> tuple[list[Entry], Scripted]:
    """Tasks from two runs of the later release, two of the earlier (that is no task), and then `runs`, of hunks."""
    scripted = Scripted(EVERY, EVERY, EVERY, *runs)
    pair = Pair(Bench(package, Path(), scripted), "1.0", "1.1", Choice(**choice))  # type: ignore[arg-type]
    return pair.tasks(lambda _: None), scripted


def test_a_hunk_that_breaks_tests_twice_is_a_task(package: Package) -> None:
    [task], scripted = made(package, failing(3, 4), failing(3, 4))
    assert task.fail_to_pass == (TESTS[3], TESTS[4])
    assert task.kind == "hunk"
    assert task.seconds == 180.0
    broken = scripted.trees[3]
    changed = [path for path, content in broken.items() if content != scripted.trees[0][path]]
    assert changed == ["src/alpha/__init__.py"]


def test_a_test_that_comes_and_goes_judges_nothing(package: Package) -> None:
    [task], _ = made(package, failing(3, 4), failing(3, 5))
    assert task.fail_to_pass == (TESTS[3],)
    assert task.dropped == (TESTS[4], TESTS[5])


@pytest.mark.parametrize(
    "runs",
    [
        (EVERY,),
        (failing(*range(6)),),
        (NOTHING,),
        (failing(3), NOTHING),
        (failing(3), EVERY),
    ],
    ids=["breaks nothing", "breaks too many", "does not end", "ends once", "fails once"],
)
def test_what_is_no_task(package: Package, runs: tuple[dict[str, str], ...]) -> None:
    assert made(package, *runs, tries=1)[0] == []


def test_skipped_and_expected_failures_are_no_passes(package: Package) -> None:
    [task], _ = made(package, failing(3, outcome="skipped"), failing(3, outcome="xfailed"))
    assert task.fail_to_pass == (TESTS[3],)


def test_a_release_is_a_task_where_its_gold_patch_is_enough(package: Package) -> None:
    scripted = Scripted(EVERY, failing(9), failing(1, 2), failing(1, 2), failing(2), EVERY)
    [task] = Pair(Bench(package, Path(), scripted), "1.0", "1.1", Choice(tries=0)).tasks(lambda _: None)  # type: ignore[arg-type]
    assert task.name == "alpha-1.0-1.1"
    assert task.fail_to_pass == (TESTS[1],)
    assert task.dropped == (TESTS[2],)
    untouched, solved = scripted.trees[2], scripted.trees[4]
    assert untouched["tests/test_alpha.py"] == solved["tests/test_alpha.py"] == scripted.trees[0]["tests/test_alpha.py"]
    assert untouched["src/alpha/__init__.py"] != solved["src/alpha/__init__.py"]


def test_too_few_tests_make_no_task(package: Package) -> None:
    pair = Pair(Bench(package, Path(), Scripted(failing(*range(15)))), "1.0", "1.1", Choice())  # type: ignore[arg-type]
    assert not pair.passing


def test_as_many_as_are_wanted(package: Package) -> None:
    runs = [failing(1)] * 6
    tasks, _ = made(package, *runs, per_pair=1)
    assert len(tasks) == 1
    again, _ = made(package, *runs, per_pair=9)
    assert len(again) == 3
    assert again[0].name == tasks[0].name


def test_code_that_does_not_compile_is_seen() -> None:
    assert making._compiles("x = 1")
    assert not making._compiles("x = ")
    assert not making._compiles("\0")
