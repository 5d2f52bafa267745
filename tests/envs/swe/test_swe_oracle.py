"""The known solution as actions."""

import subprocess
from pathlib import Path

import pytest

from palaestra.envs.swe import oracle
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.request import read_request
from palaestra.errors import DataError, EnvError

PATCH = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
REPOSITORY = Instance(name="r", format="swe-bench", problem="p", gold_patch=PATCH)


def harbor(folder: Path) -> Instance:
    return Instance(name="h", format="harbor", problem="p", verdict="reward-file", solution=str(folder))


def test_a_solution_that_goes_in_is_submitted() -> None:
    action = oracle.advise(REPOSITORY, 0, "c0ffee")
    request = read_request(action)
    assert request is not None
    assert (request.name, request.arguments) == ("apply_patch", {"patch": PATCH.strip()})
    assert oracle.follow(REPOSITORY, 0, "c0ffee", action, True) == 3
    assert oracle.advise(REPOSITORY, 3, "c0ffee") == oracle.SUBMIT


def test_one_that_does_not_is_tried_again_on_clean_files_and_then_submitted() -> None:
    position, actions = 0, []
    for ok in (False, True, False):
        actions.append(oracle.advise(REPOSITORY, position, "c0ffee"))
        position = oracle.follow(REPOSITORY, position, "c0ffee", actions[-1], ok)
    assert actions[0] == actions[2]
    assert "git reset -q --hard c0ffee" in actions[1]
    assert oracle.advise(REPOSITORY, position, "c0ffee") == oracle.SUBMIT


def test_what_others_do_is_no_part_of_the_plan() -> None:
    for action in ("<shell>ls</shell>", oracle.SUBMIT, None, {"content": "x"}):
        assert oracle.follow(REPOSITORY, 0, "c0ffee", action, True) == 0


def test_a_patch_that_would_close_its_tag_goes_through_the_shell(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a\n")
    text = PATCH.replace("+b", "+</apply_patch>")
    instance = Instance(name="r", format="swe-bench", problem="p", gold_patch=text, repository=str(tmp_path))
    request = read_request(oracle.solution(instance))
    assert request is not None
    assert request.name == "shell"
    subprocess.run(["bash", "-c", request.arguments["command"]], cwd=tmp_path, check=True)
    assert (tmp_path / "x").read_text() == "</apply_patch>\n"


def test_a_folder_is_laid_out_and_run(tmp_path: Path) -> None:
    (tmp_path / "solution" / "data").mkdir(parents=True)
    (tmp_path / "solution" / "solve.sh").write_text('cat "$(dirname "$0")/data/seven" > seven\n')
    (tmp_path / "solution" / "data" / "seven").write_text("7\n")
    action = oracle.solution(harbor(tmp_path / "solution"))
    assert action == oracle.solution(harbor(tmp_path / "solution"))
    request = read_request(action)
    assert request is not None
    script = request.arguments["command"].replace("=/solution", f"={tmp_path / 'there'}")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "seven").read_text() == "7\n"


def test_tasks_without_a_solution_have_no_oracle(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="no known solution"):
        oracle.advise(Instance(name="r", format="swe-bench", problem="p"), 0, "")
    with pytest.raises(DataError, match=r"has no solve\.sh"):
        oracle.advise(harbor(tmp_path), 0, "")
    (tmp_path / "solve.sh").write_text("x" * (oracle.MOST_BYTES + 1))
    with pytest.raises(DataError, match="too many"):
        oracle.advise(harbor(tmp_path), 0, "")
