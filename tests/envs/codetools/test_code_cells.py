"""Cells of the Python tool: what they show, what stays, and what happens to those that go wrong."""

from __future__ import annotations

import asyncio
import shutil
import time

import pytest

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.outcome import Outcome
from palaestra.envs.codetools.tools import CodeTools
from palaestra.sandboxes.spec import MIB

if shutil.which("bwrap") is None:
    pytest.skip("bubblewrap is not installed: apt-get install bubblewrap", allow_module_level=True)

pytestmark = pytest.mark.integration
SMALL = CodeLimits(seconds=60, cpu_seconds=10, memory=512 * MIB)
GONE = "The interpreter starts afresh: names defined before are gone, files are not."


def run(*cells: str, where: str = "bubblewrap", limits: CodeLimits = SMALL) -> list[Outcome]:
    async def play() -> list[Outcome]:
        tools = CodeTools("python", where=where, limits=limits)
        try:
            return [await tools.call("python", cell) for cell in cells]
        finally:
            await tools.close()

    return asyncio.run(play())


def texts(*cells: str, where: str = "bubblewrap") -> list[str]:
    return [outcome.text for outcome in run(*cells, where=where)]


EPISODES: dict[str, list[tuple[str, str, bool]]] = {
    "names live on": [("x = 6\ndef f(): return x", "", True), ("x = 7\nf()", "7\n", True)],
    "the last value is shown": [("print(1)\n2", "1\n2\n", True), ("_ + 1; None", "", True), ("None", "", True)],
    "a statement at the end is not": [("2\nx = 3", "", True)],
    "one module of the name main": [
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int", "", True),
        ("import pickle\npickle.loads(pickle.dumps(A(1))), __name__", "(A(x=1), '__main__')\n", True),
    ],
    "an error leaves what was there": [
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero\n", False),
        ("x", "1\n", True),
    ],
    "sys.exit ends the cell": [
        ("import sys\nx = 1\nsys.exit(3)", "SystemExit: 3\n", False),
        ("exit()", "", True),
        ("x, input()", "EOFError: EOF when reading a line\n", False),
    ],
    "recursion": [("def f(): f()\nf()", "maximum recursion depth exceeded\n", False), ("1", "1\n", True)],
    "a memory bomb": [("x = 'a' * (1 << 40)", "MemoryError\n", False), ("1", "1\n", True)],
    "many small bombs": [("x = []\nwhile True: x.append('a' * 999_999)", "MemoryError\n", False), ("1", "1\n", True)],
    "streams that are closed": [
        ("import os, sys\nsys.stdout.close()\nos.close(1)\nos.close(2)", "", True),
        ("print(1)\nos.system('echo 2')", "1\n2\n0\n", True),
    ],
    "a timer that is left": [
        ("import signal, time\nsignal.alarm(1); None", "", True),
        ("time.sleep(1.3)", "", True),
    ],
    "a thread that is left": [
        ("import threading, time\ngo = threading.Event()\ndef f():\n    go.wait(); print('late')", "", True),
        ("t = threading.Thread(target=f)\nt.start()\n'begun'", "'begun'\n", True),
        ("go.set()\nt.join()", "late\n", True),
    ],
    "a child that is left": [
        (
            "import os\nif os.fork() == 0: exit(3)\nprint(os.waitstatus_to_exitcode(os.wait()[1]))",
            "SystemExit: 3\n1\n",
            True,
        ),
        ("1", "1\n", True),
    ],
    "no shape for what cannot be shown": [
        ("class A:\n    def __repr__(self): raise ValueError('no')\nA()", "ValueError: no\n", False),
        (
            "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
            "E: <exception str() failed>\n",
            False,
        ),
    ],
    "text that is none": [("'\\ud800'", "'\\ud800'\n", True), ("print('\\ud800', 'é')", "\\ud800 é\n", True)],
    "streams in order": [
        (
            "import sys\nprint(1)\nprint(2, file=sys.stderr)\nos = __import__('os')\nos.system('echo 3')",
            "1\n2\n3\n0\n",
            True,
        )
    ],
    "its arguments are nobody's": [("import sys\nsys.argv", "['']\n", True)],
    "a syntax error": [("def f(:", "SyntaxError: invalid syntax\n", False)],
    "null bytes": [("'\0'", "SyntaxError: source code string cannot contain null bytes\n", False)],
    "nothing": [("", "", True), ("# nothing", "", True)],
    "interrupted": [("raise KeyboardInterrupt", "KeyboardInterrupt\n", False), ("1", "1\n", True)],
}


@pytest.mark.parametrize("where", ["bubblewrap", "none"])
@pytest.mark.parametrize("episode", EPISODES.values(), ids=EPISODES)
def test_cells_of_an_episode(episode: list[tuple[str, str, bool]], where: str) -> None:
    outcomes = run(*(cell for cell, _, _ in episode), where=where)
    for outcome, (_, text, ok) in zip(outcomes, episode, strict=True):
        assert outcome.text == text if ok else outcome.text.endswith(text)
        assert (outcome.ok, outcome.stopped) == (ok, "")


STOPPED: dict[str, tuple[str, str]] = {
    "processor time": ("while True: pass", "it used more than 1 s of processor time"),
    "a crash": ("import ctypes\nctypes.string_at(0)", "it was ended by signal 11"),
    "a kill": ("import os\nos.kill(os.getpid(), 9)", "it was ended by signal 9"),
    "an exit that nobody catches": ("import os\nos._exit(3)", "it exited with code 3"),
    "a flood": ("while True: print('a' * 1000)", "it printed more than 1048576 bytes"),
}


@pytest.mark.parametrize("where", ["bubblewrap", "none"])
@pytest.mark.parametrize(("cell", "why"), STOPPED.values(), ids=STOPPED)
def test_a_cell_that_is_stopped_costs_the_names_and_says_so(cell: str, why: str, where: str) -> None:
    limits = CodeLimits(seconds=60, cpu_seconds=1, partial=False)
    first, stopped, after, again = run("x = 1", cell, "x", "x = 2\nx", where=where, limits=limits)
    assert first.ok
    assert stopped.text == f"Stopped: {why}. {GONE}"
    assert stopped.tool == {"name": "python", "ok": False, "stopped": why}
    assert after.text.endswith("NameError: name 'x' is not defined\n")
    assert again.text == "2\n"


@pytest.mark.parametrize("where", ["bubblewrap", "none"])
@pytest.mark.parametrize(
    "cell",
    ["time.sleep(60)", "import os\nos.close(1)\nos.close(2)\ntime.sleep(60)", "import os\nos.system('sleep 60')"],
    ids=["waits", "waits without output", "waits for a program"],
)
def test_who_takes_too_long_is_stopped(cell: str, where: str) -> None:
    began = time.monotonic()
    (outcome,) = run(f"import time\nprint('so far')\n{cell}", where=where, limits=CodeLimits(seconds=2))
    assert outcome.text == f"so far\nStopped: it took more than 2 s. {GONE}"
    assert time.monotonic() - began < 15


def test_equal_cells_print_the_same() -> None:
    cells = ("import random\nrandom.random(), hash('a'), {'a', 'b', 'c'}", "object()", "random.random(), lambda: 0")
    first, *others = (texts(*cells) for _ in range(3))
    assert others == [first, first]
    assert "at 0x...>" in first[1]


def test_a_traceback_is_short_and_names_the_line() -> None:
    (text,) = texts("def f(n):\n    return g(n)\ndef g(n):\n    return f(n - 1) if n else 1 / 0\nf(90)")
    assert text.splitlines()[:3] == [
        "Traceback (most recent call last):",
        '  File "<cell 1>", line 5, in <module>',
        "    f(90)",
    ]
    assert len(text.splitlines()) < 30
    assert "lines left out" in text
    assert "palaestra" not in text


def test_long_output_is_cut_in_the_middle_and_long_code_not_run() -> None:
    limits = CodeLimits(output=100, code=1000)
    printed, shown, refused = run("print('a' * 5000 + 'b' * 5000)", "['a'] * 10**6", "#" * 2000, limits=limits)
    assert printed.text == "a" * 50 + "\n[9901 characters left out]\n" + "b" * 49 + "\n"
    assert shown.ok
    assert len(shown.text) < 200
    assert refused.text == "The code has more than 1000 characters and was not run."


def test_output_that_no_cell_waits_for_is_dropped() -> None:
    code = "import threading, time\ndef f():\n    time.sleep(0.2); print('late')\nthreading.Thread(target=f).start()"

    async def play() -> Outcome:
        tools = CodeTools("python")
        await tools.call("python", code)
        await asyncio.sleep(0.6)
        try:
            return await tools.call("python", "1")
        finally:
            await tools.close()

    assert asyncio.run(play()).text == "1\n"


def test_an_interpreter_that_ends_between_calls_is_told_of() -> None:
    async def play() -> Outcome:
        tools = CodeTools("python")
        await tools.call("python", "import os, threading\nthreading.Timer(0.2, os._exit, [3]).start()")
        await asyncio.sleep(0.8)
        try:
            return await tools.call("python", "1")
        finally:
            await tools.close()

    assert (
        asyncio.run(play()).text
        == f"[Since the last call the interpreter had ended: it exited with code 3. {GONE}]\n1\n"
    )


def test_marks_that_code_prints_are_no_marks() -> None:
    forged = "import sys\nsys.stdout.write('\\0' + '0' * 16 + ' 1 k\\0')\nprint('on')"
    assert texts(forged, "1") == ["0000000000000000 1 kon\n", "1\n"]
