import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.processes import alive, descendants, eventually, open_files

from palaestra.envs.isolation.zygote import Process, shut_down, spawn
from palaestra.errors import WorkerError

TESTS = Path(__file__).resolve().parents[2]


class Echo:
    """A worker that says back what it hears."""

    def __init__(self, **how: object) -> None:
        self.near, far = socket.socketpair()
        self.near.settimeout(30)
        self.process: Process = spawn("support.targets:echo", [far], **how)  # type: ignore[arg-type]

    def say(self, word: str) -> str:
        self.near.send(word.encode())
        return self.near.recv(1000).decode()

    def end(self) -> str:
        self.near.close()
        return eventually(lambda: self.process.ended, bool)


def test_a_worker_runs_and_ends_with_its_socket() -> None:
    echo = Echo()
    assert echo.say("hello") == "hello"
    assert echo.say("pid") == str(echo.process.pid)
    assert echo.process.ended == ""
    assert echo.end() == "exited with code 0"


def test_several_sockets() -> None:
    (near, far), (other_near, other_far) = socket.socketpair(), socket.socketpair()
    spawn("support.targets:two", [far, other_far])
    with near, other_near:
        near.send(b"across")
        assert other_near.recv(100) == b"across"


def test_it_has_nothing_but_its_socket() -> None:
    echo = Echo()
    assert echo.say("files") == "['0', '1', '2', '3', '4']"[:20] + echo.say("files")[20:]
    assert len(echo.say("files").split(",")) == 5  # stdin, stdout, stderr, the socket, the listing
    assert echo.say("stdin") == "''"
    echo.end()


@pytest.mark.parametrize(
    ("word", "how"),
    [
        ("exit 0", "exited with code 0"),
        ("exit 7", "exited with code 7"),
        ("die", "exited with code 1; its last words: last words"),
    ],
)
def test_how_it_ended_is_told(word: str, how: str) -> None:
    echo = Echo()
    assert echo.say(word) == ""
    assert echo.end() == how


def test_a_target_that_is_not_there_is_told() -> None:
    near, far = socket.socketpair()
    with near:
        process = spawn("support.targets:nothing", [far])
        assert "nothing" in eventually(lambda: process.ended, bool)


def test_killing_ends_what_it_started() -> None:
    echo = Echo()
    child = int(echo.say("child"))
    assert alive(child)
    echo.process.kill()
    echo.process.kill()
    assert eventually(lambda: echo.process.ended, bool) == "was killed by signal 9 (SIGKILL)"
    echo.end()
    assert not eventually(lambda: alive(child), lambda living: not living)


def test_what_it_started_ends_with_it() -> None:
    echo, other = Echo(), Echo()
    child, kept = int(echo.say("child")), int(other.say("child"))
    assert echo.say("exit 0") == ""
    assert not eventually(lambda: alive(child), lambda living: not living)
    assert alive(kept)
    echo.end()
    other.end()


def test_memory_has_a_limit() -> None:
    echo = Echo(memory_bytes=60_000_000)
    assert echo.say("hello") == "hello"
    assert echo.say("grow") == ""
    assert "more than its limit of 60 MB" in echo.end()


def test_the_environment_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_TEST_ONE", "1")
    echo = Echo(environ={"PALAESTRA_TEST_TWO": "2"})
    assert (echo.say("environ PALAESTRA_TEST_ONE"), echo.say("environ PALAESTRA_TEST_TWO")) == ("1", "2")
    assert echo.say("environ OMP_NUM_THREADS") == "1"
    assert echo.say("environ PYTHONMALLOC") == os.environ.get("PYTHONMALLOC", "-")
    echo.end()
    monkeypatch.setenv("PALAESTRA_TEST_ONE", "changed")
    later = Echo(environ={"PALAESTRA_TEST_TWO": "2"})
    assert later.say("environ PALAESTRA_TEST_ONE") == "changed"
    later.end()


def test_an_interpreter_that_is_not_there_is_told() -> None:
    near, far = socket.socketpair()
    with near, far, pytest.raises(WorkerError, match="cannot start /nowhere/python"):
        spawn("support.targets:echo", [far], python="/nowhere/python")


def test_a_server_that_was_killed_is_told_and_replaced() -> None:
    echo = Echo(environ={"PALAESTRA_TEST": "killed"})
    assert echo.say("hello") == "hello"
    parent = int(Path(f"/proc/{echo.process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert "fork server" in eventually(lambda: echo.process.ended, bool)
    assert echo.end()
    again = Echo(environ={"PALAESTRA_TEST": "killed"})
    assert again.say("hello") == "hello"
    again.end()


def test_shutting_down_leaves_nothing() -> None:
    files = open_files()
    Echo().end()
    shut_down()
    files &= open_files()
    others = descendants()  # that have nothing to do with workers
    with ExitStack() as stack:
        echoes = [Echo() for _ in range(20)]
        for echo in echoes:
            stack.callback(echo.near.close)
        child = int(echoes[3].say("child"))
        pids = [child, *(echo.process.pid for echo in echoes)]
        shut_down()
        assert [pid for pid in pids if alive(pid)] == []
        assert descendants() <= others
        assert all("fork server" in echo.process.ended for echo in echoes)
    assert open_files() == files


PARENT = """
import socket, sys, time
sys.path.insert(0, {tests!r})
from palaestra.envs.isolation.zygote import spawn
pids = []
for word in (b"pid", b"child", b"child"):
    near, far = socket.socketpair()
    process = spawn("support.targets:echo", [far])
    near.send(word)
    pids += [int(near.recv(100)), process.pid]
    globals()[f"kept{{len(pids)}}"] = near
near.send(b"grow")  # it hangs
print(*pids, flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(100)", "", "import os; os._exit(0)", "import os; os.abort()"])
def test_nothing_outlives_the_process(then: str) -> None:
    code = PARENT.format(tests=str(TESTS), then=then)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    parent.stdout.close()
    assert len(pids) == 6
    if "sleep" in then:
        assert all(alive(pid) for pid in pids)
        parent.kill()
    parent.wait(30)
    assert eventually(lambda: [pid for pid in pids if alive(pid)], lambda left: not left) == []


def test_a_forked_process_leaves_our_workers_alone() -> None:
    echo = Echo()
    assert echo.say("hello") == "hello"
    code = os.fork()
    if code == 0:
        shut_down()  # it has none
        os._exit(0)
    os.waitpid(code, 0)
    time.sleep(0.1)
    assert echo.say("hello") == "hello"
    echo.end()
