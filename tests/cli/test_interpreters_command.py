import json
import sys
from pathlib import Path

import msgspec
import pytest

from palaestra.cli.main import main
from palaestra.envs.isolation.venvs import Recipe, Venv, cache_folder


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
