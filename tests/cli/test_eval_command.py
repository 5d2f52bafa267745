"""`palaestra eval` and `palaestra report` on real episodes."""

import json
from pathlib import Path

import pytest

from palaestra.cli.main import main

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
