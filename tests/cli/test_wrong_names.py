"""A wrong id of any kind is one line that names the nearest; damaged tasks are one line that names file and line."""

import gzip
from pathlib import Path

import pytest
import yaml
from support.command import complaint

from palaestra.cli.main import main
from palaestra.envs.registry import register
from palaestra.envs.tasks import Task, TaskSuite, register_suite

Capture = pytest.CaptureFixture[str]
PLAY = ("--agent", "oracle", "--episodes", "1")


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [
        (("check", "alfworld/Houshold-v0"), "alfworld/Household-v0"),
        (("eval", "alfwrld:test", *PLAY), "alfworld"),
        (("eval", "alfworld/smal:test", *PLAY), "small"),
        (("eval", "alfworld/small:tset", *PLAY), "test"),
        (("eval", "alfworld/alfred:valid_sen", *PLAY), "valid_seen"),
        (("eval", "alfworld:test", "--agent", "orcale"), "oracle"),
        (("eval", "alfworld:test", "--agent", "palaestra-tyni"), "palaestra-tiny"),
        (("train", "dmeo"), "demo"),
        (("train", "demo", "algorithm.name=gpro"), "grpo"),
        (("train", "demo", "algorithm.settings.epo.smoothng=1"), "smoothing"),
        (("train", "demo", "optimiser.lrr=1"), "lr"),
        (("train", "demo", "model.reference=palaestra-tin"), "palaestra-tiny"),
        (("train", "demo", "tasks.train=alfwrld:train"), "alfworld"),
        (("train", "demo", "tasks.validation=alfworld/smal:validation"), "small"),
        (("train", "demo", "tasks.test=alfworld:tset"), "test"),
        (("demo", "rollout.group=4"), "groups"),
        (("demo", "tasks.test=alfworld:tset"), "test"),
    ],
)
def test_the_nearest_is_named(
    argv: tuple[str, ...], nearest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    hint = complaint(capsys, *argv).partition("did you mean ")[2]
    assert f"'{nearest}'" in hint
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["runs", "runs/demo"]


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: Capture) -> None:
    assert "no run directory: it has no recipe.yaml" in complaint(capsys, "train", str(tmp_path), "--resume")


@pytest.mark.parametrize("name", ["2026", "a: b", "[x", "null", "run #2"])
def test_a_directory_may_have_any_name(name: str, capsys: Capture) -> None:
    assert main(["train", "demo", "--out", name, "--print"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["out"] == name


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no gzip", "after line 0: not a whole gzip file"),
        (gzip.compress(b'{"trial": 3}\n'), "line 1: not a trial"),
        (gzip.compress(b"{"), "line 1: not a trial"),
        (gzip.compress(b" " * (2 << 20)), "line 1: longer than"),
        (gzip.compress(b"{}" * 1000)[:-9], "not a whole gzip file"),
    ],
)
def test_damaged_trials_are_told(content: bytes, told: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(content)
    params = ("--param", f"data={tmp_path}", "--param", f"layouts={tmp_path}")
    said = complaint(capsys, "eval", "alfworld/alfred:train", *PLAY, *params)
    assert f"{tmp_path / 'train.jsonl.gz'}, " in said
    assert told in said


def test_a_damaged_episode_file_is_told_and_kept(tmp_path: Path, capsys: Capture) -> None:
    store = tmp_path / "trajectories" / "eval-oracle-alfworld-test.ptj"
    store.parent.mkdir()
    store.write_bytes(b"something else\n")
    said = complaint(capsys, "eval", "alfworld:test", *PLAY, "--out", str(tmp_path))
    assert said == f"palaestra: {store}: not a Palaestra trajectory file"
    assert store.read_bytes() == b"something else\n"


def test_an_agent_that_cannot_play_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def nothing() -> None:
        raise RuntimeError("no such game")

    register("broken/Game-v0", nothing, override=True)
    task = Task(env="broken/Game-v0", name="t")
    register_suite("broken", lambda split, level=None: TaskSuite("broken", split, 2, lambda i: task))
    said = complaint(capsys, "eval", "broken:test", *PLAY, code=1)
    assert said == "palaestra: no episode of broken:test can be played, the first: RuntimeError: no such game"
