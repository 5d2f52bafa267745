"""Forking through a process in between: each case is a program of one thread, as workers are."""

import subprocess
import sys

import pytest

PREFACE = """
import ctypes, os, random, sys, time
from palaestra.envs.isolation import proc
from palaestra.envs.isolation.between import run_between

def reported(work):
    "What a process that `work` forks writes; it is a child of an ancestor of this one, or of init."
    near, far = os.pipe()
    def fork():
        if os.fork() == 0:
            proc.do_and_end(lambda: os.write(far, work().encode()))
    run_between(fork)
    os.close(far)
    with open(near) as file:
        return file.read()
"""


def ran(program: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PREFACE + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout
    return done.stdout.strip()


def test_it_is_another_process_with_this_ones_memory() -> None:
    program = """
pids = []
run_between(lambda: pids.append(os.getpid()))
assert len(pids) == 1 and pids[0] != os.getpid()
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("nothing is left of it")
"""
    assert ran(program) == "nothing is left of it"


def test_what_is_forked_has_another_parent_and_memory_of_its_own() -> None:
    program = """
me, heap = os.getpid(), {i: [i] for i in range(100_000)}
def work():
    while os.getppid() == me: time.sleep(0.01)
    for each in heap.values(): each.append(1)
    return str(os.getppid() != me)
print(reported(work), max(map(len, heap.values())), os.getpid() == me)
"""
    assert ran(program) == "True 1 True"


def test_handlers_of_python_and_of_libraries_run_as_in_every_fork() -> None:
    program = """
said = []
def handler(name):
    made = ctypes.PYFUNCTYPE(None)(lambda: said.append(name))
    handlers.append(made)
    return made
handlers = []
libc = ctypes.PyDLL(None)
register = getattr(libc, "pthread_atfork", None) or libc.__register_atfork
assert register(handler("before"), handler("parent"), handler("child"), None) == 0
os.register_at_fork(before=lambda: said.append("BEFORE"), after_in_parent=lambda: said.append("PARENT"),
                    after_in_child=lambda: said.append("CHILD"))
print(reported(lambda: " ".join(said)))
print(" ".join(said))
"""
    assert ran(program).splitlines() == ["BEFORE before child CHILD", "BEFORE before parent PARENT"]


def test_what_the_work_raises_is_raised_here() -> None:
    program = """
def fail(): raise OSError(11, "no room")
for _ in range(3):
    try: run_between(fail)
    except OSError as error: print(error.strerror)
print(reported(lambda: "and goes on"))
"""
    assert ran(program).splitlines() == ["no room"] * 3 + ["and goes on"]


def test_it_may_go_deep_at_any_depth() -> None:
    """On the stack of the process itself, below what is in use, which is as it was afterwards."""
    program = """
sys.setrecursionlimit(20_000)
def deep(n): return max([n], key=lambda k: k and deep(k - 1))  # through C, whose stack it takes
def down(n): return max([n], key=lambda k: down(k - 1) if k else found.append(work()))
def work():
    deep(100)
    return reported(lambda: str(deep(100)))
found = []
for n in range(0, 200, 25): assert down(n) == n
print(set(found), deep(100))
"""
    assert ran(program) == "{'100'} 100"


@pytest.mark.parametrize("fatal", ["os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_its_death_is_this_ones_end(fatal: str) -> None:
    """It died in the midst of something in memory that both have."""
    assert "was killed" in ran(f"run_between(lambda: {fatal})\nprint('went on')", code=1)
