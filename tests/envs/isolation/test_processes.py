import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.isolated_envs import Bad, Holding, Ledger, Mark, Waiting, spec
from support.processes import alive, descendants, eventually, open_files

from palaestra.envs.core import Env
from palaestra.envs.isolation import pool
from palaestra.envs.isolation.channel import CannotFork
from palaestra.envs.isolation.env import IsolatedEnv
from palaestra.envs.isolation.forking import MOST_GENERATIONS
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.isolation.pool import POOL
from palaestra.envs.isolation.processes import ProcessChannel, open_process
from palaestra.envs.isolation.protocol import Make, ResetCall, ResetDone, StepCall, StepDone
from palaestra.envs.isolation.zygote import shut_down
from palaestra.envs.registry import EnvSpec, make
from palaestra.errors import EnvError, WorkerError

T = TypeVar("T")

PROCESS = Placement(kind="process")


@pytest.fixture(autouse=True)
def empty_pool() -> Iterator[None]:
    """No test finds the idle workers of another."""
    POOL.clear()
    yield
    POOL.clear()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def begun(known: EnvSpec) -> ProcessChannel:
    """A channel to an environment in its episode."""
    channel = await open_process(known)
    await channel.call(Make(known))
    assert isinstance(await channel.call(ResetCall(seed=1)), ResetDone)
    return channel


def channel_of(env: Env[Any, Any]) -> ProcessChannel:
    assert isinstance(env, IsolatedEnv)
    assert isinstance(env._channel, ProcessChannel)
    return env._channel


def pid_of(env: Env[Any, Any]) -> int:
    return channel_of(env).pid


def test_a_worker_is_used_again_and_so_often() -> None:
    async def go() -> list[int]:
        pids = []
        for _ in range(5):
            async with make(spec(Ledger, placement=Placement(kind="process", reuse=2))) as env:
                await env.reset(seed=0)
                pids.append(pid_of(env))
        return pids

    a, b, c, d, e = run(go())
    assert a == b != c == d != e


def test_a_worker_is_used_again_in_another_loop_and_thread() -> None:
    async def go() -> int:
        async with make(spec(Ledger, placement=PROCESS)) as env:
            await env.reset(seed=0)
            return pid_of(env)

    pids = [run(go())]
    thread = threading.Thread(target=lambda: pids.append(run(go())))
    thread.start()
    thread.join(30)
    assert pids[0] == pids[1]


def test_environments_of_other_code_or_limits_get_other_workers() -> None:
    async def go(known: EnvSpec) -> int:
        async with make(known) as env:
            await env.reset(seed=0)
            return pid_of(env)

    placements = [PROCESS, Placement(kind="process", memory_bytes=10**9), Placement(kind="process", environ={"A": "1"})]
    pids = {run(go(spec(Ledger, placement=placement))) for placement in placements}
    assert len({*pids, run(go(spec(Bad, how="nothing", placement=PROCESS)))}) == 4


def test_what_an_environment_changes_of_its_process_is_undone(tmp_path: Path) -> None:
    async def go() -> list[tuple[int, str]]:
        found = []
        for mark in ("one", ""):
            async with make(spec(Mark, mark=mark, folder=str(tmp_path), placement=PROCESS)) as env:
                pid = (await env.reset(seed=0)).info["pid"]
                found.append((pid, (await env.step("a")).observation))
        return found

    (pid, one), (again, other) = run(go())
    assert pid == again
    assert one == f"one in {tmp_path}"
    assert other == f"- in {os.getcwd()}"


def test_workers_that_leave_processes_are_not_used_again() -> None:
    async def go() -> int:
        async with make(spec(Bad, how="subprocess", seconds=60, placement=PROCESS)) as env:
            await env.reset(seed=0)
            await env.step("a")
            return pid_of(env)

    first = run(go())
    assert not eventually(lambda: alive(first), lambda living: not living)


def test_warm_workers_wait() -> None:
    async def go() -> int:
        async with make(spec(Ledger, placement=Placement(kind="process", warm=2))) as env:
            await env.reset(seed=0)
            (idle,) = [idle for wanted, idle in POOL._idle.items() if wanted.warm == 2]
            waiting = {worker.process.pid for worker in idle}
            assert len(waiting) == 2
            assert all(alive(pid) for pid in waiting)
            async with make(spec(Ledger, placement=Placement(kind="process", warm=2))) as other:
                await other.reset(seed=0)
                assert pid_of(other) in waiting
        return len(idle)

    assert run(go()) == 4


def test_a_worker_that_died_idle_is_not_used() -> None:
    async def go() -> int:
        async with make(spec(Ledger, placement=PROCESS)) as env:
            await env.reset(seed=0)
            return pid_of(env)

    first = run(go())
    os.kill(first, signal.SIGKILL)
    assert not eventually(lambda: alive(first), lambda living: not living)
    assert run(go()) != first


def test_workers_that_are_idle_too_long_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> int:
        async with make(spec(Ledger, placement=PROCESS)) as env:
            await env.reset(seed=0)
            return pid_of(env)

    monkeypatch.setattr(pool, "IDLE_SECONDS", -1.0)
    first = run(go())
    assert not eventually(lambda: alive(first), lambda living: not living)


def test_a_worker_that_is_forgotten_ends() -> None:
    async def go() -> int:
        env = make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        return pid_of(env)

    pid = run(go())
    assert not eventually(lambda: alive(pid), lambda living: not living)


def test_how_a_worker_ended_is_told() -> None:
    async def go() -> None:
        channel = await begun(spec(Ledger, placement=PROCESS))
        os.kill(channel.pid, signal.SIGTERM)
        with pytest.raises(WorkerError, match=r"the worker process was killed by signal 15 \(SIGTERM\)"):
            await channel.call(StepCall("a"))
        with pytest.raises(WorkerError, match="gone"):
            await channel.call(StepCall("a"))
        channel.kill()
        await channel.close()

    run(go())


def test_calls_come_one_at_a_time() -> None:
    async def go() -> None:
        env = make(spec(Ledger, wait=0.2, placement=PROCESS))
        await env.reset(seed=0)
        step = asyncio.create_task(env.step("a"))
        await asyncio.sleep(0.05)
        with pytest.raises(EnvError, match="busy"):
            await env.step("b")
        with pytest.raises(EnvError, match="busy"):
            await env.fork()
        assert (await step).observation.startswith("1:")
        (sibling,) = await env.fork()
        await sibling.close()
        await env.close()

    run(go())


def test_large_messages_cross() -> None:
    async def go() -> None:
        async with make(spec(Ledger, placement=PROCESS)) as env:
            await env.reset(seed=0, options={"text": "ü" * 3_000_000})
            assert (await env.step("x" * 5_000_000)).observation.startswith("1:")

    run(go())


@pytest.mark.parametrize(
    "what", ["socket", "pipe", "writer", "thread", "child", "task", "timer", "alarm", "shared", "signal", "full"]
)
def test_forking_is_refused_where_a_copy_would_not_be_right(what: str) -> None:
    """And then the episode is replayed."""

    async def go() -> None:
        channel = await begun(spec(Holding, what=what, placement=PROCESS))
        with pytest.raises(CannotFork) as refused:
            await channel.fork(2)
        assert {
            "socket": "socket",
            "pipe": "pipe",
            "writer": "for writing",
            "thread": "2 threads (one)",
            "child": "child processes",
            "task": "event loop",
            "timer": "event loop",
            "alarm": "timer",
            "shared": "shares memory",
            "signal": "signals",
            "full": "fork failed: Resource temporarily unavailable",
        }[what] in str(refused.value)
        assert isinstance(await channel.call(StepCall("a")), StepDone)
        channel.kill()
        async with make(spec(Holding, what=what, placement=PROCESS)) as env:
            await env.reset(seed=3)
            await env.step("a")
            (sibling,) = await env.fork()
            assert await sibling.step("b") == await env.step("b")
            await sibling.close()

    run(go())


def test_files_that_are_only_read_are_read_apart(tmp_path: Path) -> None:
    async def go() -> list[list[str]]:
        file = tmp_path / "lines"
        file.write_text("".join(f"line {i}\n" for i in range(9)))
        env = make(spec(Holding, what="reader", file=str(file), placement=PROCESS))
        await env.reset(seed=0)
        await env.step("a")
        file.unlink()
        siblings = [env, *await env.fork(2)]
        seen: list[list[str]] = [[], [], []]
        for who in (0, 1, 1, 2, 0, 1, 2, 0, 2):
            seen[who].append((await siblings[who].step("a")).info["line"])
        for sibling in siblings:
            await sibling.close()
        return seen

    assert run(go()) == [["line 1", "line 2", "line 3"]] * 3


def test_files_are_read_apart_by_copies_of_copies(tmp_path: Path) -> None:
    async def go() -> None:
        file = tmp_path / "lines"
        file.write_text("".join(f"line {i} {'.' * 5000}\n" for i in range(40)))  # more than is read at once
        envs = [make(spec(Holding, what="reader", file=str(file), placement=PROCESS))]
        await envs[0].reset(seed=0)
        for _ in range(3):
            envs += await envs[-1].fork()
        for i in range(9):
            for env in reversed(envs):
                assert (await env.step("a")).info["line"].startswith(f"line {i} ")
        for env in envs:
            await env.close()

    run(go())


def test_a_copy_goes_on_in_the_event_loop_that_it_was_copied_with() -> None:
    async def go() -> None:
        env = make(spec(Waiting, placement=PROCESS))
        await env.reset(seed=0)
        first = await env.step("a")
        siblings = await env.fork(2)
        grandchildren = await siblings[0].fork(2)
        for each in (env, *siblings, *grandchildren):
            step = await each.step("b")
            assert step.info["loop"]
            assert step.info["depth"] >= first.info["depth"]
            assert step.info["files"] <= first.info["files"]
            await each.close()

    run(go())


def test_a_long_line_of_copies_has_room_for_each_and_an_end() -> None:
    """Every copy lives below its parent on the stack; before that is full, the episode is replayed."""

    async def go() -> None:
        env = make(spec(Waiting, placement=PROCESS))
        await env.reset(seed=0)
        depth = (await env.step("a")).info["depth"]
        for _ in range(MOST_GENERATIONS):
            (child,) = await env.fork()
            await env.close()
            env = child
        assert (await env.step("b")).info["depth"] >= depth
        with pytest.raises(CannotFork, match="a copy of a copy"):
            await channel_of(env).fork(1)
        (child,) = await env.fork()
        assert (await child.step("c")).observation == (await env.step("c")).observation
        (grandchild,) = await child.fork()
        for each in (env, child, grandchild):
            await each.close()

    run(go())


def test_siblings_survive_each_other() -> None:
    """Whoever ends, and however, the others and the one that they were copied from go on."""

    async def go() -> None:
        env = make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        one, two, three = await env.fork(3)
        (child,) = await one.fork()
        os.kill(pid_of(one), signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            await one.step("a")
        await env.close()
        await two.close()
        assert (await three.step("a")).observation == (await child.step("a")).observation
        pids = [pid_of(three), pid_of(child)]
        await three.close()
        await child.close()
        assert not eventually(lambda: [pid for pid in pids if alive(pid)], lambda left: not left)

    run(go())


@contextmanager
def crowded(pid: int, by: int = 4) -> Iterator[None]:
    """A process, and what it starts, on one core together with processes that always want it."""
    cores = os.sched_getaffinity(0)
    spin = f"import os; os.sched_setaffinity(0, [{max(cores)}])\nwhile os.getppid() == {os.getpid()}: pass"
    crowd = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(by)]
    try:
        os.sched_setaffinity(pid, {max(cores)})
        yield
    finally:
        for each in crowd:
            each.kill()
            each.wait()
        os.sched_setaffinity(pid, cores)


def test_a_copy_survives_though_the_fork_server_learns_of_it_last() -> None:
    """All of this happens before the server reads a word; then it learns first who has ended."""

    async def go() -> None:
        env, other = make(spec(Ledger, placement=PROCESS)), make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        (first,) = await env.fork()
        await other.reset(seed=0)
        server, pid = server_of(pid_of(other)), pid_of(first)
        os.kill(server, signal.SIGSTOP)
        try:
            channel_of(other).kill()  # gives it something to do before
            copies = await first.fork(2)
            os.kill(pid, signal.SIGKILL)
            assert not eventually(lambda: alive(pid), lambda living: not living)
        finally:
            os.kill(server, signal.SIGCONT)
        with pytest.raises(WorkerError, match="SIGKILL"):
            await first.step("a")
        await asyncio.sleep(0.2)  # in which it looks for what was left behind
        for copy in copies:
            assert (await copy.step("a")).observation.startswith("1:")
            assert channel_of(copy)._living.process.ended == ""
            await copy.close()
        await env.close()

    run(go())


def test_a_copy_survives_the_sudden_end_of_what_it_was_copied_from() -> None:
    """However late it, or the fork server, comes to run."""

    async def go() -> None:
        env = make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        with crowded(server_of(pid_of(env))):
            end = time.monotonic() + 6
            for _ in range(300):
                (child,) = await env.fork()
                (grandchild,) = await child.fork()
                await child.close()
                assert (await grandchild.step("a")).observation.startswith("1:")
                await grandchild.close()
                if time.monotonic() > end:
                    break
        await env.close()

    shut_down()  # the server's core is chosen for its workers, too
    run(go())
    shut_down()


def test_a_worker_that_is_killed_while_it_forks_leaves_nothing() -> None:
    """At every moment of it: some copies have been made, or none, or all and their parent has not said so."""

    async def go() -> None:
        env = make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        before = descendants()
        for milliseconds in range(24):
            (child,) = await env.fork()
            assert server_of(pid_of(child)) == server_of(pid_of(env))
            fork = asyncio.create_task(child.fork(3))
            await asyncio.sleep(milliseconds / 2000)
            os.kill(pid_of(child), signal.SIGKILL)
            for each in await asyncio.gather(fork, return_exceptions=True):
                if isinstance(each, BaseException):
                    assert isinstance(each, WorkerError)
                else:
                    await asyncio.gather(*(copy.close() for copy in each))
            await child.close()
        assert eventually(descendants, lambda now: now <= before, 10) <= before
        assert (await env.step("a")).observation.startswith("1:")
        await env.close()

    run(go())


def test_a_fork_that_is_cancelled_leaves_nothing() -> None:
    async def go() -> None:
        async with make(spec(Ledger, placement=PROCESS)) as env:
            await env.reset(seed=0)
            await env.step("a")
        before, files = descendants(), open_files()
        for wait in (0, 0, 0.001, 0.003, 0.006, 0.01):
            env = make(spec(Ledger, placement=PROCESS))
            await env.reset(seed=0)
            fork = asyncio.create_task(env.fork(3))
            await asyncio.sleep(wait)
            fork.cancel()
            done = await asyncio.gather(fork, return_exceptions=True)
            for sibling in done[0] if isinstance(done[0], list) else []:
                await sibling.close()
            await env.close()
        assert eventually(lambda: len(descendants()), lambda n: n <= len(before)) <= len(before)
        assert len(open_files()) <= len(files)

    run(go())


@pytest.mark.slow
def test_a_thousand_forks_leave_nothing() -> None:
    async def go() -> None:
        env = make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        await asyncio.gather(*(sibling.close() for sibling in await env.fork(2)))
        eventually(lambda: len(descendants()), lambda n: n == 2)
        before, files = descendants(), open_files()
        server_files = len(os.listdir(f"/proc/{server_of(pid_of(env))}/fd"))
        for _ in range(20):
            siblings = await env.fork(50)
            answers = await asyncio.gather(*(sibling.step("a") for sibling in siblings))
            assert len({answer.observation for answer in answers}) == 1
            await asyncio.gather(*(sibling.close() for sibling in siblings))
        assert eventually(descendants, lambda now: now == before, 30) == before
        assert open_files() == files
        assert len(os.listdir(f"/proc/{server_of(pid_of(env))}/fd")) == server_files
        assert len(os.listdir(f"/proc/{pid_of(env)}/fd")) < 12
        await env.close()

    run(go())


def server_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_more_siblings_than_one_message_carries() -> None:
    async def go() -> None:
        env = make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        siblings = await env.fork(260)
        assert len({pid_of(sibling) for sibling in siblings}) == 260
        assert (await siblings[259].step("a")).observation == (await env.step("a")).observation
        await asyncio.gather(*(sibling.close() for sibling in siblings))
        await env.close()

    run(go())


def test_too_many_open_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with make(spec(Ledger, placement=PROCESS)) as env:
            await env.reset(seed=0)

            def no_more(*_: Any) -> Any:
                raise OSError(24, "Too many open files")

            monkeypatch.setattr(socket, "socketpair", no_more)
            with pytest.raises(WorkerError, match=r"ulimit -n"):
                await env.fork()
            with pytest.raises(WorkerError, match=r"ulimit -n"):
                await make(spec(Ledger, placement=PROCESS)).reset(seed=0)
            monkeypatch.undo()
            await env.step("a")

    run(go())


def test_an_unwanted_word_ends_the_worker() -> None:
    async def go() -> None:
        env = make(spec(Bad, how="speak", placement=PROCESS))
        await env.reset(seed=0)
        with pytest.raises(WorkerError):
            await env.step("a")
        await env.close()

    run(go())


def test_a_deadline_of_a_fork() -> None:
    async def go() -> None:
        env = make(spec(Ledger, placement=Placement(kind="process", deadlines=Deadlines(fork=1e-9))))
        await env.reset(seed=0)
        with pytest.raises(EnvError, match="fork took longer"):
            await env.fork()
        await env.close()

    run(go())


def test_everything_can_be_shut_down() -> None:
    async def go() -> None:
        env = make(spec(Ledger, placement=PROCESS))
        await env.reset(seed=0)
        shut_down()
        with pytest.raises(WorkerError, match="fork server"):
            await env.step("a")
        await env.reset(seed=0)
        await env.close()

    run(go())


SCRIPT = """
import asyncio
from palaestra import Env, Reset, make, register

@register("script/Here-v0", placement="process")
class Here(Env):
    async def reset(self, *, seed=None, task=None, options=None):
        return Reset(f"seed {seed}", {})

async def main():
    async with make("script/Here-v0") as env:
        print((await env.reset(seed=3)).observation)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_an_environment_of_a_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("seed 3\n", "")
