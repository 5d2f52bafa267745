"""What the code of agents cannot reach in the sandbox that the code tools ask for."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.outcome import Outcome
from palaestra.envs.codetools.tools import CodeTools

if shutil.which("bwrap") is None:
    pytest.skip("bubblewrap is not installed: apt-get install bubblewrap", allow_module_level=True)

pytestmark = pytest.mark.integration


def run(*cells: str, where: str = "bubblewrap", limits: CodeLimits | None = None) -> Outcome:
    """What came of the last of them."""

    async def play() -> Outcome:
        tools = CodeTools("python", where=where, limits=limits)
        try:
            return [await tools.call("python", cell) for cell in cells][-1]
        finally:
            await tools.close()

    return asyncio.run(play())


REFUSED: dict[str, str] = {
    "a namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "higher limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "a system file": "open('/usr/a', 'w')",
    "a new folder": "import os\nos.mkdir('/a')",
    "more disk than there is": "for i in range(9): open(str(i), 'wb').write(b'a' * (15 << 20))",
    "accounts": "open('/etc/shadow')",
    "this file": f"open({__file__!r})",
    "more processes than there may be": "import subprocess\nwhile True: subprocess.Popen(['sleep', '60'])",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_what_is_out_of_reach(code: str) -> None:
    outcome = run(code)
    assert not outcome.ok
    assert "Error" in outcome.text or "Stopped" in outcome.text


def test_after_a_fork_bomb_the_episode_goes_on() -> None:
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    outcome = run(bomb, "1", limits=CodeLimits(seconds=3))
    assert outcome.text == "1\n"


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket\nsocket.create_connection({server.getsockname()}, 3)\nprint('there')"
        assert run(code, where="none").text == "there\n"
        assert "ConnectionRefusedError" in run(code).text


@pytest.mark.parametrize("where", ["bubblewrap", "none"])
def test_code_sees_no_secrets(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-1")
    assert "secret-1" not in run("import os\nos.environ", where=where).text
    code = "import os, re\n''.join(open(f'/proc/{p}/environ').read() for p in os.listdir('/proc') if p.isdigit())"
    if where == "bubblewrap":
        assert "secret-1" not in run(code).text


def test_an_episode_finds_nothing_of_another() -> None:
    listing = (  # folders may lead to the interpreter
        "import os, pathlib\nopen('/tmp/a', 'w'), open('b', 'w')\n"
        "[each.name for folder in ('/tmp', '.') for each in pathlib.Path(folder).iterdir() if each.is_file()]"
    )
    assert run(listing).text == run(listing).text == "['a', 'b']\n"


KILLED = """
import asyncio, os, signal, threading
from palaestra.envs.codetools.tools import CodeTools
from palaestra.envs.isolation.proc import children, descendants
def end():
    print(*descendants(os.getpid(), children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Timer(3, end).start()
asyncio.run(CodeTools("python").call("python", "import time; time.sleep(60)"))
"""


def test_code_ends_with_the_process_that_runs_it() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    pids = done.stdout.split()
    assert len(pids) >= 3
    deadline = time.monotonic() + 10
    while any(map(_lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_lives, pids))


def _lives(pid: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return False
    return "bwrap" in command or "palaestra" in command
