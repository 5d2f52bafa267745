"""The command line as a person uses it: what it prints, what it says about mistakes, its exit codes."""

import json
from pathlib import Path

import pytest

from palaestra import __version__
from palaestra.cli.main import COMMANDS, main

Capture = pytest.CaptureFixture[str]


def complaint(capsys: Capture, *argv: str, code: int = 2) -> str:
    """The one line on standard error."""
    assert main(argv) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("palaestra: ")
    return lines[0]


def test_help_lists_every_command(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)


def test_nothing_to_do_is_an_error_that_helps(capsys: Capture) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, capsys: Capture) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert f"  palaestra {command} " in shown or f"  palaestra {command}\n" in shown


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"palaestra {__version__}\n"


def test_an_unknown_command_names_the_nearest(capsys: Capture) -> None:
    assert "did you mean 'train'?" in complaint(capsys, "trian", "demo")


def test_an_unknown_flag_names_the_nearest(capsys: Capture) -> None:
    said = complaint(capsys, "eval", "alfworld:test", "--agent", "random", "--episode", "3")
    assert "'--episode'; did you mean --episodes?" in said


def test_a_missing_argument_is_named(capsys: Capture) -> None:
    assert "--agent" in complaint(capsys, "eval", "alfworld:test")


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5"])
def test_a_count_must_be_positive(value: str, capsys: Capture) -> None:
    complaint(capsys, "eval", "alfworld:test", "--agent", "random", f"--episodes={value}")


def test_a_negative_temperature_is_refused(capsys: Capture) -> None:
    complaint(capsys, "eval", "alfworld:test", "--agent", "random", "--temperature", "-1")


def test_wrong_names_name_the_nearest(capsys: Capture) -> None:
    assert "'alfworld'" in complaint(capsys, "eval", "alfwrld:test", "--agent", "random")
    assert "'oracle'" in complaint(capsys, "eval", "alfworld:test", "--agent", "orcale")
    assert "'demo'" in complaint(capsys, "train", "dmeo")
    assert "'lr'" in complaint(capsys, "train", "demo", "optimiser.Lrr=1")


def test_a_run_that_is_none_is_named(tmp_path: Path, capsys: Capture) -> None:
    assert "run directory" in complaint(capsys, "report", str(tmp_path))


def test_resume_needs_a_folder(capsys: Capture) -> None:
    assert "--out" in complaint(capsys, "eval", "alfworld:test", "--agent", "random", "--resume")


def test_a_missing_file_is_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    said = complaint(capsys, "eval", "alfworld:test", "--agent", "random", "--out", str(tmp_path / "file" / "below"))
    assert "file" in said


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    import palaestra.cli.envs

    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(palaestra.cli.envs, "run", interrupted)
    assert "interrupted" in complaint(capsys, "envs", code=130)


def test_envs_lists_what_is_there(capsys: Capture) -> None:
    assert main(["envs", "--json"]) == 0
    lists = json.loads(capsys.readouterr().out)
    assert "alfworld/Household-v0" in lists["environments"]
    (alfworld,) = (suite for suite in lists["suites"] if suite["name"] == "alfworld")
    assert alfworld["splits"]["test"] == 1_000
    assert "demo" in lists["recipes"]
    assert main(["envs"]) == 0
    assert "alfworld/Household-v0" in capsys.readouterr().out


def test_envs_tells_all_about_a_suite(capsys: Capture) -> None:
    assert main(["envs", "textworld-express"]) == 0
    said = capsys.readouterr().out
    assert "Java" in said
    assert "coin, cookingworld" in said
    assert "train 1,000" in said
    assert "did you mean 'textworld'" in complaint(capsys, "envs", "textwrld")


def test_a_suite_without_a_card_is_listed_too(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from palaestra.envs import tasks

    monkeypatch.setattr(tasks, "_LOADERS", dict(tasks._LOADERS))
    tasks.register_suite("plain", lambda split, level: tasks.TaskSuite("plain", split, 0, lambda index: None))
    assert main(["envs"]) == 0
    assert "plain" in capsys.readouterr().out
    assert main(["envs", "plain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "plain"}]


def test_every_shipped_recipe_fits_its_schema(capsys: Capture) -> None:
    from palaestra.cli.recipes import recipe_paths

    assert recipe_paths()
    for name in recipe_paths():
        assert main(["train", name, "--print"]) == 0, capsys.readouterr().err


QUIZ = """
from palaestra import Env, Reset, Step, register

@register("quiz/{name}-v0", max_episode_steps=1)
class Quiz(Env):
    async def reset(self, *, seed=None, task=None, options=None):
        return Reset("Capital of Peru?", {{"admissible_commands": ["Lima", "Quito"]}})

    async def step(self, action):
        return Step("Right." if action == "Lima" else "Wrong.", {reward}, True, False, {{"success": action == "Lima"}})
"""


def test_check_passes_an_environment_from_a_file(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "good_quiz.py").write_text(QUIZ.format(name="Good", reward="1.0"))
    assert main(["check", "quiz/Good-v0", "--json", "--import", str(tmp_path / "good_quiz.py")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["determinism"] == "exact"


def test_check_fails_with_code_1(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "bad_quiz.py").write_text(QUIZ.format(name="Bad", reward="'one'"))
    assert main(["check", "quiz/Bad-v0", "--import", str(tmp_path / "bad_quiz.py")]) == 1
    assert "✗ rewards are finite floats    a reward is a str" in (shown := capsys.readouterr().out)
    assert ", 1 failed," in shown


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "broken_quiz.py").write_text("1 / 0")
    said = complaint(capsys, "check", "quiz/Any-v0", "--import", str(tmp_path / "broken_quiz.py"))
    assert "division by zero" in said
    assert "no_such_module" in complaint(capsys, "check", "quiz/Any-v0", "--import", "no_such_module")


def test_check_of_an_unknown_id_names_the_nearest(capsys: Capture) -> None:
    assert "alfworld/Household-v0" in complaint(capsys, "check", "alfworld/Houshold-v0")
