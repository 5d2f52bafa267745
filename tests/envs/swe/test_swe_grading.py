"""Verdicts on real sandboxes: what counts, what is left behind, and what code under test may do without effect."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace
from support.sandboxes import PLACES, sh
from support.sandboxes import Place as Where
from support.swe_sealed import CODE, FAIL_TO_PASS, MENDED, PASS_TO_PASS, Court, make_instance

from palaestra.envs.swe.grade import Grade
from palaestra.envs.swe.instance import Instance
from palaestra.errors import DataError
from palaestra.sandboxes.core import Sandbox

Work = Callable[[Sandbox], Awaitable[object]]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Instance:
    return make_instance(tmp_path_factory.mktemp("sealed"))


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def where(request: pytest.FixtureRequest) -> Where:
    place: Where = request.param
    return place


def verdict(instance: Instance, where: Where, *work: Work, **settings: object) -> Grade:
    return _COURT[-1].verdict(instance, where, *work, **settings)


_COURT: list[Court] = []


@pytest.fixture(scope="module", autouse=True)
def court() -> Iterator[None]:
    _COURT.append(Court())
    yield
    _COURT.pop().close()


def put(path: str, text: str) -> Work:
    return lambda sandbox: sandbox.write_file(f"/work/repo/{path}", text.encode())


def shell(script: str) -> Work:
    return lambda sandbox: sh(sandbox, script, cwd="/work/repo")


mend = put("src/stack.py", MENDED)


def test_a_solution_solves(instance: Instance, where: Where) -> None:
    found = verdict(instance, where, mend)
    assert found.solved, found
    assert found.passed == found.required == len(FAIL_TO_PASS) + len(PASS_TO_PASS)
    assert not found.failed
    assert not found.caught
    assert not found.reason
    assert found.seconds > 0


def test_nothing_solves_nothing(instance: Instance, where: Where) -> None:
    found = verdict(instance, where, thorough=True)
    assert not found.solved
    assert not found.caught, found
    assert set(found.failed) == set(FAIL_TO_PASS)
    assert "do not pass" in found.reason
    assert "AssertionError" in found.details["tests/test_stack.py::test_pop"]


@pytest.mark.parametrize("seed", range(6))
def test_a_solution_solves_whatever_is_a_decoy(instance: Instance, seed: int) -> None:
    assert verdict(instance, PLACES[0], mend, random=Random(seed), rounds=3).solved


def test_another_solution_solves_too(instance: Instance) -> None:
    other = CODE.replace("self.items.pop(0)", "self.items.pop(len(self.items) - 1)").replace(
        "return len(self.items) + 1", "return sum(1 for _ in self.items)"
    )
    assert verdict(instance, PLACES[0], put("src/stack.py", other)).solved


def test_what_passed_must_go_on_to(instance: Instance) -> None:
    worse = MENDED.replace("stack number", "Stack number")
    found = verdict(instance, PLACES[0], put("src/stack.py", worse), thorough=True)
    assert not found.solved
    assert found.failed == ("tests/test_stack.py::test_name",)


def test_code_that_passes_everything_is_caught(instance: Instance, where: Where) -> None:
    always = "\nimport _pytest.python as p, unittest\np.Function.runtest = lambda self: None\n"
    found = verdict(instance, where, put("src/stack.py", CODE + always))
    assert not found.solved
    assert "pass as they are and as decoys" in found.caught
    assert found.passed == 0
    assert set(found.failed) == {*FAIL_TO_PASS, *PASS_TO_PASS}


def test_without_decoys_it_would_be_believed(instance: Instance) -> None:
    always = "\nimport _pytest.python as p, _pytest.unittest as u\n"
    always += "p.Function.runtest = u.TestCaseFunction.runtest = lambda self: None\n"
    assert verdict(instance, PLACES[0], put("src/stack.py", CODE + always), rounds=1).solved


def test_new_deleted_and_moved_files_are_taken(instance: Instance) -> None:
    moved = "mkdir src/stack; sed 's/^/ /;s/^ //' src/stack.py > src/stack/core.py; rm src/stack.py README"
    found = verdict(instance, PLACES[0], mend, shell(moved), put("src/stack/__init__.py", "from .core import *\n"))
    assert found.solved, found


def test_tests_and_settings_of_the_agent_are_left_out(instance: Instance, where: Where) -> None:
    found = verdict(
        instance,
        where,
        mend,
        put("tests/test_stack.py", "def test_pop(): assert 0\n"),
        put("conftest.py", "raise SystemExit\n"),
        put("src/sitecustomize.py", "raise SystemExit\n"),
        put("src/json.py", "raise SystemExit\n"),
        put("pytest.ini", "[pytest]\naddopts = --collect-only\n"),
        put("tests/conftest.py", "raise SystemExit\n"),
        shell("ln -s /proc proc; ln -s stack.py src/linked.py; mkfifo src/pipe.py"),
    )
    assert found.solved, found
    assert "'src/json.py' hides a module of Python's or pytest's" in found.left_out
    assert "'pytest.ini' changes how Python or pytest starts, or is compiled" in found.left_out
    assert any("linked.py" in line and "is a link" in line for line in found.left_out)


def test_processes_of_the_agent_change_nothing(instance: Instance, where: Where) -> None:
    daemon = "while true; do : > src/late.txt; : > tests/test_stack.py; : > tests/conftest.py; sleep 0.01; done"
    found = verdict(instance, where, mend, shell(f"setsid sh -c '{daemon}' >/dev/null 2>&1 </dev/null &"))
    assert found.solved, found


def test_a_sandbox_full_of_processes_is_judged_by_its_files(instance: Instance, where: Where) -> None:
    small = replace(instance, limits=replace(instance.limits, pids=24))
    bomb = "import os, time\nfor _ in range(100):\n  try:\n    os.fork()\n  except OSError: time.sleep(3600)"
    work = shell(f"setsid python3 -c '{bomb}' >/dev/null 2>&1 </dev/null & sleep 1")
    assert verdict(small, where, mend, work).solved


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(0)", "ended before their end, with exit code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by a signal"),
        ("import time; time.sleep(600)", "took longer than"),
        ("import os\nwhile True: os.write(2, b'passed' * 9999)", "ended before their end"),
    ],
)
def test_tests_that_do_not_come_to_their_end(instance: Instance, code: str, reason: str) -> None:
    short = replace(instance, test_seconds=8.0 if "sleep" in code else 120.0)
    found = verdict(short, PLACES[0], put("src/stack.py", f"{MENDED}\n{code}\n"))
    assert not found.solved
    assert reason in found.reason


def test_a_repository_that_is_gone(instance: Instance, where: Where) -> None:
    async def remove(sandbox: Sandbox) -> None:
        await sh(sandbox, "rm -rf /work/repo", cwd="/work")

    found = verdict(instance, where, remove)
    assert not found.solved
    assert "the repository cannot be read" in found.reason


def test_tests_that_are_not_there(instance: Instance, tmp_path: Path) -> None:
    lost = replace(instance, test_files={"/work/repo": str(tmp_path / "none")})
    with pytest.raises(DataError, match="the tests of 'stack' are not at"):
        verdict(lost, PLACES[0])
    with pytest.raises(DataError, match=r"lack tests/other\.py"):
        verdict(replace(instance, fail_to_pass=("tests/other.py::test_a",)), PLACES[0])
    with pytest.raises(DataError, match="names no test"):
        verdict(replace(instance, fail_to_pass=(), pass_to_pass=()), PLACES[0])


def test_a_command_that_is_not_pytest(instance: Instance) -> None:
    with pytest.raises(DataError, match="python3 -m pytest"):
        verdict(replace(instance, test_command=("make", "test")), PLACES[0])
