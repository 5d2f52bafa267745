"""Java virtual machines: wrong ones are said to be, killed ones are started again, and none outlives its process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from palaestra.envs.java import machine
from palaestra.envs.java.machine import Machine, Program
from palaestra.envs.scienceworld.simulator import PROGRAM as SCIENCEWORLD
from palaestra.envs.textworld_express.jvm import PROGRAM as TEXTWORLD_EXPRESS
from palaestra.errors import EnvError, MissingExtraError, WorkerError

if shutil.which("java") is None:
    pytest.skip("Java is not installed: apt-get install default-jre-headless", allow_module_level=True)

pytestmark = pytest.mark.integration
PROGRAMS = (SCIENCEWORLD, TEXTWORLD_EXPRESS)


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.extra)
def program(request: pytest.FixtureRequest) -> Program:
    found: Program = request.param
    if find_spec(found.module) is None:
        pytest.skip(f"not installed: pip install 'palaestra[{found.extra}]'")
    return found


@pytest.fixture
def place(program: Program) -> Iterator[Machine]:
    place = Machine(program)
    yield place
    place.stop()


def fake_java(folder: Path, script: str) -> str:
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    return str(folder)


def gone(pid: int) -> bool:
    """Whether the process has ended, or soon has."""
    status = Path("/proc", str(pid), "stat")
    for _ in range(400):
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_one_machine_serves_many_threads_and_what_it_prints_blocks_nobody(place: Machine) -> None:
    jvm = place.running()
    system = jvm.gateway.jvm.java.lang.System
    line = "x" * 100_000

    def talk(_: int) -> int:
        jvm.call(system.out.println, line)
        jvm.call(system.err.println, line)
        return int(jvm.call(jvm.gateway.jvm.java.lang.Integer.parseInt, "7"))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(talk, range(20))) == [7] * 20
    assert place.running() is jvm
    with pytest.raises(EnvError, match=r"failed: .*NumberFormatException"):
        jvm.call(jvm.gateway.jvm.java.lang.Integer.parseInt, "seven")


def test_a_killed_one_is_an_error_and_another_is_started(place: Machine) -> None:
    jvm = place.running()
    clock = jvm.gateway.jvm.java.lang.System.nanoTime
    assert jvm.call(clock)
    os.kill(jvm.process.pid, signal.SIGKILL)
    jvm.process.wait(20)
    with pytest.raises(WorkerError, match="the next reset starts another"):
        jvm.call(clock)
    assert place.running() is not jvm
    assert place.alive


def test_stop_ends_it(place: Machine) -> None:
    pid = place.running().process.pid
    place.stop()
    assert gone(pid)
    place.stop()


def test_its_port_wants_a_password(place: Machine) -> None:
    from py4j.java_gateway import GatewayParameters, JavaGateway
    from py4j.protocol import Py4JError

    port = place.running().gateway.gateway_parameters.port
    stranger = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token="guess"))
    with pytest.raises(Py4JError):
        stranger.jvm.java.lang.System.nanoTime()
    stranger.close()


def test_no_java_names_the_package(place: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvError, match="default-jre-headless"):
        place.running()


def test_a_home_without_java_is_named(place: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nothing"))
    with pytest.raises(EnvError, match="JAVA_HOME, .*nothing, has no bin/java"):
        place.running()
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, ""))
    (tmp_path / "bin" / "java").chmod(0o644)
    with pytest.raises(EnvError, match="has no bin/java that runs"):
        place.running()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "nothing"),
        ("echo rubbish; echo more", "rubbish / more"),
        ("yes rubbish", "rubbish"),
        ("head -c 3000000 /dev/zero", "x00"),
        ("echo 99999999; echo x", "99999999"),
        ("echo 'UnsupportedClassVersionError: compiled by a more recent version' >&2; exit 1", "more recent version"),
        ("echo 'Unrecognized VM option' >&2; exit 1", "Unrecognized VM option"),
    ],
)
def test_a_java_that_does_not_start_is_quoted(
    script: str, said: str, place: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, script))
    with pytest.raises(EnvError, match=f"Java did not start, it said .*{said}"):
        place.running()


def test_a_java_that_says_nothing_is_waited_for_so_long(
    place: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "START_SECONDS", 0.3)
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, "exec sleep 100"))
    with pytest.raises(EnvError, match="it said 'nothing'"):
        place.running()


def test_one_that_is_too_old_is_refused(place: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OLDEST", 99)
    with pytest.raises(EnvError, match="needs Java 99 or newer, this is "):
        place.running()
    assert not place.alive


def test_the_missing_extra_is_named(place: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, place.program.module, None)
    with pytest.raises(MissingExtraError, match=rf"palaestra\[{place.program.extra}\]"):
        place.running()


STARTED = """
import os, signal, time
from palaestra.envs.java.machine import Machine
from {module} import PROGRAM
place = Machine(PROGRAM)
print(place.running().process.pid, flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os._exit(3)",
        "os.killpg(os.getpgid(0), signal.SIGINT); time.sleep(20)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_java_ends_with_the_process_however_it_ends(end: str, program: Program) -> None:
    module = next(
        name
        for name in ("palaestra.envs.scienceworld.simulator", "palaestra.envs.textworld_express.jvm")
        if sys.modules[name].PROGRAM is program
    )
    code = STARTED.format(module=module, end=end)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, start_new_session=True
    )
    assert gone(int(done.stdout.split()[0]))
