"""`palaestra eval` and `palaestra report` on real episodes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import complaint, write_recipe
from support.envs import InjectedEnv, plain_reset
from support.levers import register_levers, save_tiny_model

from palaestra.cli.main import main
from palaestra.envs.registry import register
from palaestra.envs.tasks import Task, TaskSuite, register_suite
from palaestra.trajectories.store import read_trajectories

Capture = pytest.CaptureFixture[str]
LEVERS = ("eval", "levers:test", "--episodes", "4", "--json", "--agent")

EVAL = ("eval", "alfworld:test", "--episodes", "8", "--agent")


def test_the_oracle_solves_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVAL, "oracle", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["success"]["value"] == 1.0
    assert result["n"] == 8
    assert result["suite"] == "alfworld:test"


def test_the_table_has_a_row_per_task_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVAL, "random"]) == 0
    shown = capsys.readouterr().out
    assert "pick_clean_then_place_in_recep" in shown
    assert "all" in shown


def test_results_are_stored_resumed_and_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "base"), "--json")
    assert main([*EVAL, "random", *out]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main([*EVAL, "random", *out]) == 2
    assert "earlier evaluation" in capsys.readouterr().err
    assert main([*EVAL, "random", *out, "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    stored = json.loads((tmp_path / "base" / "eval" / "random-alfworld-test.json").read_text())
    assert stored == again


def test_a_report_is_made_of_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVAL, "random", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_suite_parameters_must_be_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVAL, "random", "--param", "data"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


class TestResume:
    """Two agents never share a result, whatever their folders are called."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        register_levers()
        return save_tiny_model(tmp_path / "a" / "model")

    @pytest.mark.parametrize(
        ("before", "now", "told"),
        [
            ([], ["--action", "choice"], "action format 'TextAction', not 'ChoiceAction'"),
            (["--max-turns", "1"], ["--max-turns", "2"], "max_turns 1, not 2"),
            (["--max-turns", "1"], [], "max_turns 1, not 50"),
            ([], ["--top-p", "0.5"], "top_p 1.0, not 0.5"),
            ([], ["--top-k", "3"], "top_k 0, not 3"),
            (["--temperature", "0.5"], [], "temperature 0.5, not 1.0"),
        ],
    )
    def test_other_settings_are_told(
        self, before: list[str], now: list[str], told: str, model: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        command = [*LEVERS, str(model), "--out", str(tmp_path / "e")]
        assert main([*command, *before]) == 0
        capsys.readouterr()
        assert main([*command, *before, "--resume"]) == 0
        capsys.readouterr()
        assert main([*command, *now, "--resume"]) == 2
        assert f" was played with {told}; name another file" in capsys.readouterr().err

    def test_another_model_of_the_same_name(self, model: Path, tmp_path: Path, capsys: Capture) -> None:
        other, same = save_tiny_model(tmp_path / "b" / "model", seed=1), save_tiny_model(tmp_path / "c" / "model")
        out = ("--out", str(tmp_path / "e"), "--resume")
        assert main([*LEVERS, str(model), *out]) == 0
        assert main([*LEVERS, str(same), *out]) == 0
        capsys.readouterr()
        assert main([*LEVERS, str(other), *out]) == 2
        assert "was played with weights " in capsys.readouterr().err

    def test_a_run_that_was_trained_further(self, tmp_path: Path, capsys: Capture) -> None:
        recipe = write_recipe(tmp_path, "evaluation.every=0", "evaluation.test_episodes=0", "budget.iterations=1")
        command = [*LEVERS, str(tmp_path / "run"), "--out", str(tmp_path / "e"), "--resume"]
        assert main(["train", str(recipe)]) == 0
        assert main(command) == 0
        assert main(["train", str(tmp_path / "run"), "budget.iterations=2", "--resume"]) == 0
        capsys.readouterr()
        assert main(command) == 2
        assert "was played with weights " in capsys.readouterr().err


def test_a_run_is_played_as_its_recipe_says(tmp_path: Path, capsys: Capture) -> None:
    """The command's result is the one that the run wrote after training."""
    recipe = write_recipe(tmp_path, "evaluation.every=0", "tasks.max_turns=1", "budget.iterations=1")
    assert main(["train", str(recipe)]) == 0
    capsys.readouterr()
    assert main(["eval", "levers:test", "--agent", str(tmp_path / "run"), "--episodes", "5", "--json"]) == 0
    result, own = (json.loads(text) for text in (capsys.readouterr().out, (tmp_path / "run/eval/rl.json").read_text()))
    assert {**result, "seconds": 0, "agent": ""} == {**own, "seconds": 0, "agent": ""}
    assert (result["length"], result["temperature"]) == (1.0, 0.0)
    told = ("--max-turns", "2", "--temperature", "0.5", "--top-p", "0.9")
    assert main([*LEVERS, str(tmp_path / "run"), *told]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["length"], result["temperature"], result["top_p"]) == (2.0, 0.5, 0.9)


def test_the_table_tells_how_tokens_were_drawn(tmp_path: Path, capsys: Capture) -> None:
    register_levers()
    model = str(save_tiny_model(tmp_path / "model"))
    assert main(["eval", "levers:test", "--agent", model, "--episodes", "2", "--top-k", "5", "--top-p", "0.5"]) == 0
    assert "temperature 1, top-k 5, top-p 0.5" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("broken", "code"), [(3, 1), (1, 0)])
def test_episodes_that_fail_are_told(broken: int, code: int, tmp_path: Path, capsys: Capture) -> None:
    """All of them: no result, and an exit code. Some: a result and a warning."""

    async def reset(env: InjectedEnv) -> Any:
        if env.seed < broken:
            raise RuntimeError("no such game")
        return await plain_reset(env)

    register("test/Failing-v0", lambda: InjectedEnv(on_reset=reset), override=True)
    register_suite("failing", lambda split, level=None: TaskSuite("failing", split, 3, failing_task))
    assert main(["eval", "failing:test", "--agent", "random", "--out", str(tmp_path), "--json"]) == code
    shown = capsys.readouterr()
    told = "no episode of failing:test can be played" if code else "warning: 67 of 200 episodes failed"
    assert shown.err == f"palaestra: {told}, the first: RuntimeError: no such game\n"
    assert bool(shown.out) == (tmp_path / "eval").exists() == (code == 0)


def failing_task(index: int) -> Task:
    return Task(env="test/Failing-v0", name=f"task-{index}", seed=index)


@pytest.mark.parametrize(
    "option", ["--temperature=nan", "--temperature=inf", "--temperature=-1", "--top-p=0", "--top-p=nan"]
)
def test_numbers_that_mean_nothing_are_refused(option: str, capsys: Capture) -> None:
    assert option.partition("=")[0] in complaint(capsys, *EVAL, "random", option)


def test_what_is_stored_says_how_it_was_played(tmp_path: Path) -> None:
    register_levers()
    model = save_tiny_model(tmp_path / "model")
    assert main([*LEVERS, str(model), "--out", str(tmp_path / "e"), "--top-k", "3"]) == 0
    (store,) = (tmp_path / "e" / "trajectories").iterdir()
    conditions = next(read_trajectories(store)).meta["conditions"]
    assert len(conditions.pop("weights")) == 32
    assert conditions == {
        "agent": "model",
        "action format": "TextAction",
        "context": "FullContext",
        "max_tokens": 32,
        "max_context": None,
        "system message": None,
        "temperature": 1.0,
        "top_k": 3,
        "top_p": 1.0,
        "max_turns": 50,
    }


def test_what_an_environment_leaves_behind_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    (tmp_path / "lingering.py").write_text(LINGERING)
    command = ["eval", "lingering:test", "--agent", "random", "--episodes", "1", "--json", "--import", "lingering.py"]
    done = subprocess.run(
        [sys.executable, "-m", "palaestra", *command], cwd=tmp_path, capture_output=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["n"] == 1


LINGERING = """
import asyncio
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.registry import register
from palaestra.envs.tasks import Task, TaskSuite, register_suite

async def stay():
    while True:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass

@register("lingering/Env-v0")
class Lingering(Env):
    async def reset(self, *, seed=None, task=None, options=None):
        self.task = asyncio.create_task(stay())
        return Reset("hello", {"admissible_commands": ["go"]})
    async def step(self, action):
        return Step("bye", 1.0, True, False, {"admissible_commands": ["go"], "success": True})

def load(split, level=None):
    return TaskSuite("lingering", split, 1, lambda i: Task(env="lingering/Env-v0", name="one", split=split, seed=i))

register_suite("lingering", load)
"""
