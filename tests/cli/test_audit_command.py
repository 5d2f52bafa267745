"""`palaestra audit`."""

import json
from pathlib import Path

import pytest
from support.swe_episode import make_rows, need_bubblewrap
from support.swe_repository import VARIABLES

from palaestra.cli.main import main

Capture = pytest.CaptureFixture[str]
SWE = "swe/Repository-v0"


def test_attacks_on_a_task(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_bubblewrap()
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    rows = make_rows(tmp_path)
    task = ["--task", "swe/swebench:test", "--param", f"path={rows}"]
    task += ["--param", f"repositories={tmp_path / 'repositories'}", "--param", f"variables={json.dumps(VARIABLES)}"]
    assert main(["audit", SWE, *task, "--attack", "no-op", "--attack", "patch the calls", "--json"]) == 0
    found = {one["attack"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name: one["score"] for name, one in found.items()} == {"oracle": 1, "no-op": 0, "patch the calls": 0}
    assert all(one["ok"] for one in found.values())
    assert "decoys" in found["patch the calls"]["seen"]


def test_a_table_of_nonsense(capsys: Capture) -> None:
    assert main(["audit", "countdown/Numbers-v0", "--episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert "✓ echo" in out
    assert "0 of 2" in out


def test_wrong_words(capsys: Capture) -> None:
    for arguments, message in (
        ([SWE, "--attack", "a demon"], "unknown attack 'a demon'; did you mean 'a daemon'"),
        (["countdown/Numbers-v0", "--backend", "docker"], "--attack and --backend are for swe/Repository-v0"),
        (["countdown/Numbers-v0", "--task", "sokoban:test"], "sokoban:test has no task of countdown/Numbers-v0"),
        (["swe/Repositry-v0"], "did you mean 'swe/Repository-v0'"),
    ):
        assert main(["audit", *arguments]) == 2
        assert message in capsys.readouterr().err
