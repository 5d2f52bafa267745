"""`palaestra check`, one environment and all of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from palaestra.cli.main import main
from palaestra.envs import registry
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.registry import register

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment that keeps the contract, and three that cannot."""
    monkeypatch.setattr(registry, "_SPECS", {})
    monkeypatch.setattr(registry, "_MAKERS", {})
    monkeypatch.setattr(registry, "_discovered", True)
    register("odd/Corridor-v0", "support.odd_envs:Corridor", max_episode_steps=30)
    register("odd/Easy-v0", "support.odd_envs:Easy", max_episode_steps=30)
    register("odd/Missing-v0", "support.odd_missing:Missing")


def check(capsys: Capture, *arguments: str, code: int) -> list[str]:
    assert main(["check", *arguments]) == code
    return capsys.readouterr().out.splitlines()


def test_one_environment_or_all(capsys: Capture) -> None:
    for arguments in ([], ["odd/Corridor-v0", "--all"]):
        assert main(["check", *arguments]) == 2
        assert "give the id of an environment, or --all" in capsys.readouterr().err


@pytest.mark.usefixtures("few")
def test_all_are_summed_up(capsys: Capture) -> None:
    header, *rows = check(capsys, "--all", code=0)
    assert header.split() == ["environment", "result", "✓", "!", "✗", "–", "determinism", "random", "agent"]
    assert rows[0].split() == ["odd/Corridor-v0", "ok", "27", "0", "0", "3", "exact", "20", "%"]
    assert rows[1].split() == ["odd/Easy-v0", "ok", "26", "1", "0", "3", "exact", "90", "%"]
    assert rows[2].split() == ["odd/Missing-v0", "skipped"]
    assert rows[3].startswith("odd/Easy-v0  ! random agent: mean reward 0.9, 90 % solved (10 episodes): an agent has")
    assert rows[4] == "odd/Missing-v0  – skipped: it needs palaestra[quiz]"
    assert len(rows) == 5


@pytest.mark.usefixtures("few")
def test_one_that_fails_is_the_exit_code_of_all(capsys: Capture) -> None:
    register("odd/HashOrder-v0", "support.odd_envs:HashOrder", max_episode_steps=30)
    reports = [json.loads(line) for line in check(capsys, "--all", "--json", "--episodes", "1", code=1)]
    assert {report["env"]: report["ok"] for report in reports} == {
        "odd/Corridor-v0": True,
        "odd/Easy-v0": True,
        "odd/HashOrder-v0": False,
        "odd/Missing-v0": False,
    }
    assert reports[-1]["missing"] == "palaestra[quiz]"


@pytest.mark.usefixtures("few")
def test_an_interpreter_is_not_built_in_passing(capsys: Capture, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    where = Placement(kind="interpreter", requirements=("quiz-of-tomorrow",))
    register("odd/Apart-v0", "support.odd_envs:Corridor", placement=where)
    rows = check(capsys, "--all", "--episodes", "1", code=0)
    assert (
        "odd/Apart-v0  – skipped: it needs an interpreter of its own; to build it: palaestra check odd/Apart-v0" in rows
    )


@pytest.mark.usefixtures("few")
def test_it_can_be_placed_elsewhere(capsys: Capture) -> None:
    rows = check(capsys, "odd/Corridor-v0", "--placement", "thread", code=0)
    assert rows[0] == "odd/Corridor-v0 (thread)"


@pytest.mark.usefixtures("few")
def test_an_extra_that_is_missing_fails_the_one_that_was_asked_for(capsys: Capture) -> None:
    rows = check(capsys, "odd/Missing-v0", code=1)
    assert rows[1].endswith("no_such_quizzes is not installed; run: pip install 'palaestra[quiz]'")


def test_deadlines_are_positive(capsys: Capture) -> None:
    assert main(["check", "odd/Corridor-v0", "--call-seconds", "0"]) == 2
    assert "0" in capsys.readouterr().err
