"""Problems with an interpreter: what code may do, what it may not, and what the agent sees of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.isolation.proc import children, descendants
from palaestra.envs.math.confinement import Kind, Limits
from palaestra.envs.math.python import PythonEnv
from palaestra.envs.math.sandbox import Ran, run_python
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import EnvError

if shutil.which("bwrap") is None:
    pytest.skip("bubblewrap is not installed: apt-get install bubblewrap", allow_module_level=True)

pytestmark = pytest.mark.integration
ID = "math/Python-v0"
TASK = Task(env=ID, name="t", params={"problem": "6 * 7?", "answer": "42", "judge": "exact", "max_turns": 3})
SMALL = Limits(seconds=60, cpu_seconds=1)


def run(code: str, sandbox: Kind = "bubblewrap", limits: Limits = SMALL) -> Ran:
    return asyncio.run(run_python(code, limits, sandbox))


def test_it_keeps_the_contract() -> None:
    def choose(info: Any, generator: Any) -> str:
        return generator.choice(("<python>print(6 * 7)</python>", "hm", "<python>1 / 0</python>", r"\boxed{42}"))

    report = check_env(ID, seeds=(0, 1), actions=choose, max_steps=4)
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_an_episode() -> None:
    async def play() -> None:
        async with make(ID) as env:
            first = await env.reset(task=TASK)
            assert "6 * 7?" in first.observation
            assert "<python>" in first.observation
            step = await env.step("Let me see. <python>print(6 * 7)</python> Then <python>print(1)</python>")
            assert step.observation == "<result>\n42\n</result>"
            assert step.info["tool"] == {"name": "python", "ok": True}
            assert (step.reward, step.terminated, step.info["invalid"]) == (0.0, False, False)
            step = await env.step(r"so \boxed{42}")
            assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
            assert "tool" not in step.info

    asyncio.run(play())


def test_calls_in_the_shape_of_a_chat_and_what_makes_no_sense() -> None:
    async def play() -> None:
        async with make(ID) as env:
            await env.reset(task=TASK)
            assert env.tools()[0]["function"]["name"] == "python"
            call = {"function": {"name": "python", "arguments": '{"code": "print(7)"}'}}
            step = await env.step({"role": "assistant", "content": "", "tool_calls": [call]})
            assert step.observation == "<result>\n7\n</result>"
            for nonsense in (r"\boxed{42", "x" * 2_000_000):
                step = await env.step(nonsense)
                assert step.info["invalid"]
                assert not step.terminated
            assert step.truncated

    asyncio.run(play())


def test_a_fork_goes_on_as_the_episode_would() -> None:
    async def play() -> None:
        async with make(ID) as env:
            await env.reset(task=TASK)
            await env.step("<python>x = 1</python>")
            siblings = [env, *await env.fork(2)]
            actions = ("<python>import random\nprint(random.random(), hash('a'), object())</python>", r"\boxed{42}")
            went = [[seen("", await sibling.step(action)) for action in actions] for sibling in siblings]
            assert went[0] == went[1] == went[2]
            for sibling in siblings[1:]:
                await sibling.close()

    asyncio.run(play())


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
@pytest.mark.parametrize(
    ("code", "output", "ok"),
    [
        ("print('é', 2**100)", "é 1267650600228229401496703205376\n", True),
        ("", "", True),
        ("import sympy\nprint(sympy.sqrt(8))", "2*sqrt(2)\n", True),
        ("import sys\nprint('a', file=sys.stderr)\nsys.exit(3)", "a\n", False),
        ("1 / 0", "ZeroDivisionError: division by zero\n", False),
        ("def f(:", "SyntaxError: invalid syntax\n", False),
        ("print(input())", "EOFError: EOF when reading a line\n", False),
        ("x = 'a' * (1 << 40)", "MemoryError\n", False),
        (
            "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1), __name__)",
            "A(x=1) __main__\n",
            True,
        ),
        ("import threading\nt = threading.Thread(target=print, args='a')\nt.start()\nt.join()", "a\n", True),
        ("print('\\ud800')", "\\ud800\n", True),
        ("while True: pass", "Stopped: it used more processor time than it may.", False),
        ("import ctypes\nctypes.string_at(0)", "Stopped: it was ended by signal 11.", False),
        ("while True: print('a' * 1000)", "Stopped: it printed more than 1048576 bytes.", False),
        ("open('a', 'wb').write(b'a' * (1 << 25))", "OSError: [Errno 27] File too large\n", False),
    ],
)
def test_what_code_does_and_its_limits(code: str, output: str, ok: bool, sandbox: Kind) -> None:
    ran = run(code, sandbox)
    assert ran.output.endswith(output)
    assert ran.ok is ok
    assert "_run" not in ran.output


@pytest.mark.parametrize(
    "code",
    ["import time\ntime.sleep(60)", "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(60)"],
    ids=["waits", "waits without output"],
)
def test_who_takes_too_long_is_stopped(code: str) -> None:
    began = time.monotonic()
    assert run(code, limits=Limits(seconds=1)) == ("Stopped: it took more than 1 s.", False)
    assert time.monotonic() - began < 15


REFUSED: dict[str, str] = {
    "a process": "import os\nos.fork()",
    "a program": "import subprocess\nsubprocess.run(['true'])",
    "a namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "higher limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (100, 100))",
    "a system file": "open('/usr/a', 'w')",
    "a device folder": "open('/dev/shm/a', 'w')",
    "memory as files": "for i in range(9): open(str(i), 'wb').write(b'a' * (15 << 20))",
    "other processes": "import os\nos.listdir('/proc')",
    "accounts": "open('/etc/passwd')",
    "this file": f"open({__file__!r})",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_what_is_out_of_reach(code: str) -> None:
    ran = run(code)
    assert not ran.ok
    assert "Error" in ran.output


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket\nsocket.create_connection({server.getsockname()}, 3)\nprint('there')"
        assert run(code, "none").output == "there\n"
        assert "ConnectionRefusedError" in run(code).output


def test_code_sees_no_secrets_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert "secret" not in run("import os\nprint(os.environ)").output
    assert "secret" not in run("import os\nprint(os.environ)\nopen('a', 'w')", "none").output
    assert run("import os\nopen('a', 'w')\nprint(os.listdir('.'))").output == "['a']\n"
    assert run("import os\nprint(os.listdir('.'))").output == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_long_output_is_cut_in_the_middle_and_long_code_not_run() -> None:
    ran = run("print('a' * 5000 + 'b' * 5000)", limits=Limits(output=100))
    assert ran.output == "a" * 50 + "\n[9901 characters left out]\n" + "b" * 49 + "\n"
    assert not run("#" * 200_000).ok


def test_many_at_once_and_one_that_is_cancelled() -> None:
    async def play() -> None:
        sleeping = asyncio.create_task(run_python("import time\ntime.sleep(30)", Limits()))
        await asyncio.sleep(0.2)
        sleeping.cancel()
        ran = await asyncio.gather(*(run_python(f"print({i})", Limits()) for i in range(12)))
        assert [one.output for one in ran] == [f"{i}\n" for i in range(12)]
        assert sleeping.cancelled()

    asyncio.run(play())
    assert not any(runs_it(str(pid)) for pid in descendants(os.getpid(), children()))


KILLED = """
import asyncio, os, signal, threading
from palaestra.envs.isolation.proc import children, descendants
from palaestra.envs.math.confinement import Limits
from palaestra.envs.math.sandbox import run_python
def end():
    print(*descendants(os.getpid(), children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Timer(1.5, end).start()
asyncio.run(run_python("import time; time.sleep(60)", Limits(seconds=60)))
"""


def test_code_ends_with_the_process_that_runs_it() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    pids = done.stdout.split()
    assert len(pids) >= 2
    deadline = time.monotonic() + 10
    while any(map(runs_it, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs_it, pids))


def runs_it(pid: str) -> bool:
    try:
        return "RLIMIT_CPU" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_without_bubblewrap_it_is_refused_unless_one_asks_for_no_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvError, match="apt-get install bubblewrap"):
        PythonEnv()
    assert PythonEnv(sandbox="none").sandbox == "none"
    monkeypatch.setenv("PALAESTRA_SANDBOX", "none")
    assert PythonEnv().sandbox == "none"
    with pytest.raises(EnvError, match="sandbox is"):
        PythonEnv(sandbox="docker")  # type: ignore[arg-type]


def test_a_sandbox_that_does_not_work_is_an_error_and_no_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EnvError, match="does not start: no namespaces here"):
        run("print(1)")


def test_the_suite_offers_it() -> None:
    suite = load_suite("math:test", tools="python", max_turns=4)
    assert suite[0].env == ID
    assert suite[0].params["max_turns"] == 4

    async def play(check: Callable[[Any], Any]) -> Any:
        async with make(ID) as env:
            await env.reset(task=suite[0])
            return check(await env.step(await env.oracle()))

    assert asyncio.run(play(lambda step: step.reward)) == 1.0
