from __future__ import annotations

import io
from pathlib import Path

import pytest

from palaestra.cli.main import main

QUIZ = """
from palaestra import Env, Reset, Step, register

@register("quiz/Played{n}-v0", max_episode_steps=3)
class Quiz(Env):
    async def reset(self, *, seed=None, task=None, options=None):
        return Reset("Capital of Peru?\\x1b[2J", {{"admissible_commands": ["Lima", "Quito"]}})

    async def step(self, action):
        right = action == "Lima"
        return Step(f"You said {{action!r}}.", float(right), right, False, {{"success": right}})
"""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def play(lines: str, *arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        assert main(["play", *arguments]) == code
        said = capsys.readouterr()
        return said.out + said.err

    return play


def test_the_hints_solve_a_task(typed) -> None:
    lines, hint = "", ""
    for _ in range(30):
        said = typed(f"{lines}/hint\n", "alfworld:test")
        hint = said.splitlines()[-2]
        lines += f"{hint}\n"
        said = typed(lines, "alfworld:test")
        if ", the end]" in said:
            break
    assert f"[turn {lines.count(chr(10))}: reward 1, in all 1, the end]" in said
    assert f"solved after {lines.count(chr(10))} turns, return 1" in said


def test_slashes_ask_and_are_no_turns(typed) -> None:
    said = typed("/actions\n/help\n/look\n/quit\nlook\n", "alfworld/Household-v0", "--seed", "3")
    assert "\ninventory\n" in said
    assert "/hint" in said
    assert said.count("Your task is to") == 2
    assert said.endswith("not solved after 0 turns, return 0\n")


def test_an_environment_of_ones_own(tmp_path: Path, typed) -> None:
    (tmp_path / "played_quiz.py").write_text(QUIZ.format(n=1))
    said = typed("Quito \\\nno\n/hint\nLima\n", "quiz/Played1-v0", "--import", str(tmp_path / "played_quiz.py"))
    assert "\x1b" not in said
    assert r"You said 'Quito \nno'." in said
    assert "there is no expert here" in said
    assert said.endswith("solved after 2 turns, return 1\n")


def test_limits_and_wrong_words(typed, tmp_path: Path) -> None:
    assert "not solved after 2 turns" in typed("look\nlook\nlook\n", "alfworld:test", "--max-turns", "2")
    assert "is for suites" in typed("", "alfworld/Household-v0", "--param", "progress=true", code=2)
    assert "has no tasks" in typed("", "alfworld:test[5:5]", code=2)
    assert "did you mean" in typed("", "alfworld/Houshold-v0", code=2)
