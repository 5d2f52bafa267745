"""The tasks that ship, composed of their real sources, and some of them run."""

from __future__ import annotations

import shutil

import pytest

from palaestra.cli.main import main
from palaestra.envs.swe.index import UnreachableError
from palaestra.envs.swe.instances import read_instance
from palaestra.envs.swe.manifest import Package, manifest
from palaestra.envs.swe.releases import compose

pytestmark = pytest.mark.slow
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.mark.integration
@pytest.mark.parametrize("package", manifest().packages, ids=[package.project for package in manifest().packages])
def test_every_real_task_is_composed_of_its_sources(package: Package) -> None:
    for task in package.tasks:
        try:
            made = compose(package, task)
        except UnreachableError as error:
            pytest.skip(str(error))
        assert {id.partition("::")[0] for id in task.fail_to_pass} <= set(made.tests)
        assert made.gold.startswith("diff --git a/")
        assert made.base
        if task.kind == "hunk":
            assert all(id in made.problem for id in task.fail_to_pass)
            assert "```python" in made.problem
        else:
            assert f"{package.project} {task.before}" in made.problem
            assert len(made.problem) > 300


@pytest.mark.integration
@needs_bubblewrap
@pytest.mark.parametrize("project", ["parse", "cachetools"])
def test_real_tasks_are_what_the_manifest_says(project: str, capsys: pytest.CaptureFixture[str]) -> None:
    package = next(package for package in manifest().packages if package.project == project)
    names = [next(task.name for task in package.tasks if task.kind == kind) for kind in ("release", "hunk")]
    try:
        for name in names:
            read_instance({"format": "releases", "name": name})
    except UnreachableError as error:
        pytest.skip(str(error))
    assert main(["swe", "verify", *names]) == 0, capsys.readouterr().out
