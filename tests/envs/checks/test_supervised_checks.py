"""Environments that would take the checker down with them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from palaestra.envs.checks.report import Check, Report
from palaestra.envs.checks.supervisor import supervised
from palaestra.envs.deadline import Limits
from palaestra.envs.registry import EnvSpec

QUICK = Limits(call=1.0, check=4.0)


def report(how: str, when: str = "step", limits: Limits = QUICK, **options: object) -> Report:
    spec = EnvSpec(
        id="bad/Bad-v0", entry_point="support.isolated_envs:Bad", kwargs={"how": how, "when": when, "seconds": 30.25}
    )
    return supervised(spec, limits=limits, episodes=1, max_steps=3, **options)  # type: ignore[arg-type]


def failure(found: Report) -> Check:
    """The first that failed."""
    assert not found.ok
    return found.failures[0]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "raised ValueError: the door is"),
        ("wrong_type", "step returned a str"),
        ("os_exit", "the process ended with exit code 0"),
        ("sys_exit", "step called sys.exit"),
        ("segfault", "the process was killed by SIGSEGV"),
        ("interrupt", "the process was killed by SIGINT: KeyboardInterrupt"),
        ("base", "step raised BaseException: bare"),
        ("cancelled", "step raised CancelledError though nobody had cancelled it"),
        ("hang", "step took longer than 1 s"),
        ("deaf", "step took longer than 1 s and ignores being cancelled"),
        ("busy", "step blocked the event loop for 1 s, in "),
        ("late", "step blocked the event loop for 1 s, in "),
    ],
)
def test_a_bad_step_fails_the_step(how: str, reason: str) -> None:
    began = time.monotonic()
    found = report(how)
    assert failure(found).name == "step"
    assert failure(found).reason.startswith(reason)
    assert time.monotonic() - began < 15
    assert found.checks[-1].reason in ("needs step", "step ended the checks")
    assert found.determinism is None


@pytest.mark.parametrize(("when", "check"), [("create", "make"), ("reset", "reset")])
def test_a_death_fails_the_check_that_ran(when: str, check: str) -> None:
    assert failure(report("os_exit", when)).name == check


def test_memory_has_a_ceiling() -> None:
    found = report("allocate", limits=Limits(call=30, check=60), memory_bytes=400 * 2**20)
    assert "GB of memory, more than 0.4 GB; it was killed" in failure(found).reason


def test_what_is_started_and_left_is_named_and_killed() -> None:
    found = report("subprocess", limits=Limits(call=5, check=20))
    assert [check.name for check in found.failures] == ["close releases everything"]
    assert "processes are left (" in failure(found).reason
    assert "sleep" in failure(found).reason
    assert not _sleeping(seconds="30.25")


def test_what_a_dead_environment_left_is_killed() -> None:
    assert failure(report("orphan_exit")).reason == "the process ended with exit code 3"
    assert not _sleeping(seconds="30.25")


def _sleeping(seconds: str) -> list[str]:
    """Processes of that command line, whoever their parent is."""
    commands = [path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for path in commands:
        with contextlib.suppress(OSError):
            found.append(path.read_text())
    return [command for command in found if command == f"sleep\0{seconds}\0"]


def test_noise_on_stdout_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    assert report("print").ok
    assert capfd.readouterr().out == ""


def test_every_check_is_told_as_it_goes() -> None:
    told: list[tuple[str, Check | None]] = []
    found = report("nothing", progress=lambda name, check: told.append((name, check)))
    assert found.ok, str(found)
    assert [check for _, check in told if check] == list(found.checks)
    assert [name for name, check in told if check is None] == [check.name for check in found.checks]


def test_the_worker_imports_what_registers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone_astray.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = report("nothing", modules=["gone_astray"])
    assert failure(found).reason == "the process ended with exit code 1: RuntimeError: not today"


def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        report("os_exit", "create")
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_outlives_a_checker_that_is_killed() -> None:
    """The environment has started a process, and hangs."""
    code = (
        "from palaestra.envs.checks.supervisor import supervised\n"
        "from palaestra.envs.registry import EnvSpec\n"
        "supervised(EnvSpec(id='odd/Leaky-v0', entry_point='support.odd_envs:Stuck'))"
    )
    path = os.pathsep.join(sys.path)
    checker = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    _wait_for(lambda: bool(_sleeping("41.75")))
    checker.kill()
    checker.wait()
    _wait_for(lambda: not _sleeping("41.75"))


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("reward", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(("graded", "check"), [(False, "rewards are finite floats"), (True, "random agent")])
def test_a_reward_that_is_not_finite_fails_a_check(reward: str, graded: bool, check: str) -> None:
    found = supervised(_odd("OddReward", reward=reward, graded=graded), episodes=1, max_steps=3)
    assert check in [failed.name for failed in found.failures], str(found)
    assert f"the reward {reward}; " in failure(found).reason or f"a reward is {reward}; " in failure(found).reason
    assert json.loads(found.to_json())["ok"] is False


def test_a_text_that_cannot_be_encoded_is_told_all_the_same() -> None:
    assert failure(supervised(_odd("OddText"), episodes=1, max_steps=3)).reason == "raised ValueError: ?"


def _odd(name: str, **kwargs: object) -> EnvSpec:
    return EnvSpec(id=f"odd/{name}-v0", entry_point=f"support.odd_envs:{name}", kwargs=kwargs)
