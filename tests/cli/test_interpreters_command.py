import json
import sys
from pathlib import Path

import msgspec
import pytest

from palaestra.cli.main import main
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.isolation.venvs import Recipe, Venv, cache_folder
from palaestra.envs.registry import register


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))


def pretend(*requirements: str) -> Venv:
    """What a build leaves, as far as listing goes."""
    recipe = Recipe(requirements, sys.executable, sys.version)
    recipe.venv.python.parent.mkdir(parents=True)
    recipe.venv.python.symlink_to(sys.executable)
    recipe.venv.mark.write_bytes(msgspec.json.encode(recipe))
    recipe.venv.log.touch()
    return recipe.venv


def test_nothing_is_listed_where_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interpreters"]) == 0
    assert main(["interpreters", "--remove", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    venv = pretend("alfworld==0.4.2", "numpy")
    (cache_folder() / "abc.log").touch()
    assert main(["interpreters"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted([venv.home.name, "abc"])
    assert any(line.endswith("alfworld==0.4.2 numpy") for line in lines)
    assert any("not complete" in line and "abc.log" in line for line in lines)


def test_one_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = pretend("one"), pretend("other")
    assert main(["interpreters", "--remove", one.home.name, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["requirements"] == ["one"]
    assert other.ready
    assert not one.home.exists()
    assert not one.log.exists()


def test_all_are_removed() -> None:
    pretend("one")
    pretend("other")
    assert main(["interpreters", "--remove"]) == 0
    assert list(cache_folder().iterdir()) == []


def test_an_unknown_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    venv = pretend("one")
    assert main(["interpreters", "--remove", venv.home.name[:-1]]) == 2
    assert f"did you mean '{venv.home.name}'?" in capsys.readouterr().err
    assert venv.ready


def test_one_that_is_built_already_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """By a virtual environment without requirements, so that no package is fetched but what workers need."""
    register("test/Apart-v0", "support.isolated_envs:Ledger", placement=Placement(kind="interpreter"), override=True)
    venv = pretend()
    assert main(["interpreters", "--build", "test/Apart-v0", "alfworld/Household-v0", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["ready"], row["requirements"]) == (venv.home.name, True, [])


def test_what_runs_in_this_interpreter_needs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interpreters", "--build", "alfworld/Household-v0", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_building_wants_environments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interpreters", "--build"]) == 2
    assert "--build gem/Game-v0" in capsys.readouterr().err
    assert main(["interpreters", "--build", "gem/Gamme-v0"]) == 2
    assert "did you mean 'gem/Game-v0'" in capsys.readouterr().err
    assert main(["interpreters", "--build", "--remove"]) == 2


def test_a_failed_build_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    where = Placement(kind="interpreter", requirements=("/no/such/folder",))
    register("test/Unbuildable-v0", "support.isolated_envs:Ledger", placement=where, override=True)
    assert main(["interpreters", "--build", "test/Unbuildable-v0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("palaestra: cannot build the interpreter of test/Unbuildable-v0: ")
    assert said.count("\n") == 1
