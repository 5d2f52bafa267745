"""A small repository with a fault and its tests: a git clone, and the SWE-bench row that is about it."""

import json
import subprocess
from pathlib import Path
from typing import Any

CODE = '''"""Lists."""


def smallest(numbers):
    """The smallest number."""
    return sorted(numbers)[1]


def largest(numbers):
    """The largest number."""
    return sorted(numbers)[-1]


def total(numbers):
    """Their sum."""
    return sum(numbers) + 1
'''
MENDED = CODE.replace("sorted(numbers)[1]", "sorted(numbers)[0]").replace("sum(numbers) + 1", "sum(numbers)")
TESTS = """from lists import largest


def test_largest():
    assert largest([3, 1, 2]) == 3
"""
NEW_TESTS = """from lists import largest, smallest, total


def test_largest():
    assert largest([3, 1, 2]) == 3


def test_smallest():
    assert smallest([3, 1, 2]) == 1


def test_total():
    assert total([3, 1, 2]) == 6
"""
VARIABLES = {"PYTHONPATH": "/work/repo/src", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""With which its tests run in the sandbox."""


def make_clone(folder: Path) -> dict[str, Any]:
    """Make `folder/some__lists`, whose newest commit is the solution, and return the row of the commit before it."""
    clone = folder / "some__lists"
    (clone / "src").mkdir(parents=True)
    (clone / "tests").mkdir()
    (clone / "src" / "lists.py").write_text(CODE)
    (clone / "tests" / "test_lists.py").write_text(TESTS)
    (clone / ".gitignore").write_text("*.log\n")
    (clone / "run.sh").write_text("echo run\n")
    (clone / "run.sh").chmod(0o755)
    (clone / "link").symlink_to("src/lists.py")
    _git(clone, "init", "-q", "-b", "main")
    base = _commit(clone, "the fault")
    (clone / "src" / "lists.py").write_text(MENDED)
    patch = _git(clone, "diff")
    _commit(clone, "the mend")
    (clone / "tests" / "test_lists.py").write_text(NEW_TESTS)
    test_patch = _git(clone, "diff")
    _commit(clone, "its tests")
    return {
        "instance_id": "some__lists-1",
        "repo": "some/lists",
        "base_commit": base,
        "problem_statement": "smallest and total are wrong.",
        "patch": patch,
        "test_patch": test_patch,
        "FAIL_TO_PASS": json.dumps(["tests/test_lists.py::test_smallest", "tests/test_lists.py::test_total"]),
        "PASS_TO_PASS": json.dumps(["tests/test_lists.py::test_largest"]),
        "version": "1.0",
        "environment_setup_commit": base,
        "hints_text": "",
    }


def _commit(clone: Path, message: str) -> str:
    _git(clone, "add", "-A")
    _git(clone, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", message)
    return _git(clone, "rev-parse", "HEAD").strip()


def _git(clone: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=clone, capture_output=True, text=True, check=True).stdout
