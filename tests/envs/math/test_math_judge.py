"""Judges: right ones, hostile answers, and processes that go away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("math_verify", reason="not installed: pip install 'palaestra[math]'")

from palaestra.envs.isolation import proc
from palaestra.envs.math import judge as module
from palaestra.envs.math.judge import JUDGES, judge
from palaestra.envs.math.judging import Judgement
from palaestra.errors import EnvError, MissingExtraError

pytestmark = pytest.mark.integration
TOWER = "$9^{9^{9^9}}$"


def right(answer: str, gold: str) -> bool:
    return asyncio.run(judge(answer, gold)).right


@pytest.mark.parametrize(
    ("answer", "gold", "is_right"),
    [
        ("1+1", "2", True),
        (r"\sqrt{4}", "2", True),
        ("x = 2", "2", True),
        (r"2 \text{ apples}", "2", True),
        (r"x^2 + 2x + 1", "(x+1)^2", True),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
        ("(1,2)", "(2,1)", False),
        ("x", "y", False),
        ("1 or 2", "2", False),
        ("1, 2", "2", False),
        (r"\{1, 2, 3\}", "2", False),
        (r"[1, 3]", "2", False),
        (r"1 \le x \le 3", "2", False),
        (r"2 \cup 3", "2", False),
        ("2=1", "2", False),
        (r"\infty", "2", False),
        ("nan", "2", False),
        (r"\frac{0}{0}", "0", False),
    ],
)
def test_judgements(answer: str, gold: str, is_right: bool) -> None:
    assert right(answer, gold) is is_right


HOSTILE = [
    "9^9^9^9",
    TOWER,
    "(((9!)!)!)!",
    r"\binom{10^9}{5 \cdot 10^8}",
    "(" * 99,
    "[" * 50 + "]" * 50,
    r"\sqrt{" * 99 + "2" + "}" * 99,
    r"\left(" * 100,
    "x^{1000000}-(x-1)^{1000000}",
    "1/" * 400 + "1",
    "+".join(f"x^{{{i}}}" for i in range(90)),
    "\\" * 999,
    "$" * 999,
    "\u0660\u0661\u0662",
    "²³",
    "1\u0301" * 200,
]


def test_hostile_answers_neither_hang_nor_crash_and_others_go_on() -> None:
    async def play() -> tuple[list[Judgement], list[Judgement], int]:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.05)
                beats += 1

        heart = asyncio.create_task(beat())
        hostile = [asyncio.create_task(judge(answer, "7")) for answer in HOSTILE]
        honest = await asyncio.gather(*(judge(f"{i}+1", str(i + 1)) for i in range(30)))
        judged = await asyncio.gather(*hostile)
        heart.cancel()
        return judged, honest, beats

    judged, honest, beats = asyncio.run(play())
    assert not any(judgement.right for judgement in judged)
    assert judged[HOSTILE.index(TOWER)].error == "timeout"
    assert all(judgement.right for judgement in honest)
    assert beats > 20
    assert len(JUDGES._running) <= JUDGES.most


def test_a_judge_that_was_killed_is_replaced_and_the_answer_judged_all_the_same() -> None:
    async def play() -> None:
        assert (await judge("1+1", "2")).right
        asking = asyncio.create_task(judge(r"\int_0^1 x^{x^{x}} dx", "5"))
        await asyncio.sleep(0.2)
        for one in list(JUDGES._running):
            os.kill(one.process.pid, signal.SIGKILL)
        assert not (await asking).right
        assert (await judge("1+1", "2")).right

    asyncio.run(play())


def test_those_that_ended_while_nobody_asked_are_not_asked() -> None:
    async def play() -> None:
        await asyncio.gather(*(judge(f"{i}+1", str(i + 1)) for i in range(20)))
        pids = [one.process.pid for one in JUDGES._running]
        assert len(pids) > 1
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        while any(map(lives, pids)):
            await asyncio.sleep(0.05)
        found = await asyncio.gather(*(judge(f"{i}+1", str(i + 1)) for i in range(3 * len(pids))))
        assert all(judgement.right for judgement in found)

    asyncio.run(play())


def test_one_that_does_not_start_is_an_error_and_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SERVE", "palaestra.envs.math.judging:absent")
    JUDGES.clear()
    with pytest.raises(EnvError, match="judge of answers does not start: .*absent"):
        right("1+1", "2")
    monkeypatch.undo()
    assert right("1+1", "2")


def test_the_missing_extra_is_named_where_a_judge_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    JUDGES.clear()
    assert right("1/2", "0.5")
    with pytest.raises(MissingExtraError, match=r"palaestra\[math\]"):
        right("1+1", "2")


def test_who_gives_up_costs_the_others_nothing() -> None:
    async def play() -> None:
        slow = [asyncio.create_task(judge(TOWER, "7")) for _ in range(3 * JUDGES.most)]
        await asyncio.sleep(0.3)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert all(task.cancelled() for task in slow)
        judged = await asyncio.gather(*(judge(f"{i}+1", str(i + 1)) for i in range(10)))
        assert all(judgement.right for judgement in judged)

    asyncio.run(play())


def test_loops_in_several_threads_share_them() -> None:
    found: list[bool] = []

    def play() -> None:
        async def ask() -> None:
            judged = await asyncio.gather(*(judge(f"{i}+1", str(i + 1)) for i in range(20)))
            found.extend(judgement.right for judgement in judged)

        asyncio.run(ask())

    threads = [threading.Thread(target=play) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [True] * 80
    assert len(JUDGES._running) <= JUDGES.most


ASKED = """
import asyncio, os, signal, sys
from palaestra.envs.isolation.proc import children, descendants
from palaestra.envs.math.judge import JUDGES, judge
assert asyncio.run(judge("1+1", "2")).right
print(*descendants(os.getpid(), children()), flush=True)
{end}
"""
FORK = """
pid = os.fork()
if pid == 0:
    done = asyncio.run(judge("1+2", "3")).right and len(JUDGES._running) == 1
    sys.exit(0 if done else 3)
assert os.waitpid(pid, 0)[1] == 0
assert asyncio.run(judge("1+3", "4")).right
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        (FORK, 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(3)", 3),
        ("asyncio.run(asyncio.wait_for(judge('9^{9^{9^9}}', '2'), 0.5))", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
    ],
    ids=["ends", "forks", "is killed", "leaves at once", "gives up on one", "Ctrl-C"],
)
def test_judges_end_with_the_process_however_it_ends(end: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED.format(end=end)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    deadline = time.monotonic() + 15
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(lives, pids))


def lives(pid: int) -> bool:
    try:
        return b"palaestra" in (proc.PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


PLAIN = """
import asyncio
from palaestra.envs.math.judge import JUDGES, judge
print(asyncio.run(judge("1/2", "0.5")).right, JUDGES._running)
"""


def test_nothing_starts_before_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True []\n"
