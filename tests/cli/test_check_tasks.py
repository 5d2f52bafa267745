"""`palaestra check SUITE`: tasks whose solution solves nothing, and tasks that pay for doing nothing."""

import json
from typing import Any

import pytest

from palaestra.cli.main import main

Capture = pytest.CaptureFixture[str]
SUITE = ["check", "graded:test", "--import", "support.graded_envs", "--check-seconds", "1"]


def rows(capsys: Capture, *arguments: str, code: int) -> dict[str, dict[str, Any]]:
    assert main([*SUITE, *arguments, "--json"]) == code
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["task"]: row for row in found}


def test_what_is_wrong_with_tasks_is_named(capsys: Capture) -> None:
    found = rows(capsys, "--concurrency", "6", code=1)
    assert {name: row["wrong"] for name, row in found.items()} == {
        "good-1": "",
        "given-1": "doing nothing is paid 1",
        "unsolved-1": "the oracle does not solve it in 1 steps: it was another word",
        "unknown-1": "",
        "broken-1": "RuntimeError: there is no such file",
        "slow-1": "it took longer than 1 s",
    }
    good = found["good-1"]
    assert (good["ok"], good["noop"], good["oracle"], good["steps"], good["kind"]) == (True, 0.0, 1.0, 1, "word")
    assert (found["unknown-1"]["noop"], found["unknown-1"]["oracle"]) == (0.0, None)


def test_the_first_tasks_alone(capsys: Capture) -> None:
    assert list(rows(capsys, "--tasks", "1", code=0)) == ["good-1"]


def test_a_table_and_what_is_wrong_below(capsys: Capture) -> None:
    assert main([*SUITE, "--tasks", "2"]) == 1
    told = capsys.readouterr()
    header, good, given, remark = told.out.splitlines()
    assert header.split() == ["task", "kind", "doing", "nothing", "oracle", "steps", "seconds"]
    assert good.split()[:5] == ["✓", "good-1", "word", "0", "1"]
    assert given.split()[:5] == ["✗", "given-1", "word", "1", "1"]
    assert remark == "given-1: doing nothing is paid 1"
    assert "1 of 2 tasks are wrong" in told.err


def test_suites_without_grading_have_their_oracle_checked(capsys: Capture) -> None:
    assert main(["check", "alfworld:test", "--tasks", "2", "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["noop"] is None
    assert first["oracle"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere:test"], "unknown suite"),
        (["check", "graded:test[9:9]", "--import", "support.graded_envs"], "has no task to check"),
        (["check", "graded:test", "--tasks", "0"], "--tasks"),
    ],
)
def test_what_cannot_be_checked(capsys: Capture, arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
