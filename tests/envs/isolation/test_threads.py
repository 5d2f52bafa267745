"""Environments in threads: affinity, what hangs, forks, and thousands of them."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from palaestra.envs import registry
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.isolation.channel import CannotFork
from palaestra.envs.isolation.env import IsolatedEnv
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.isolation.protocol import Ask, Make, Value
from palaestra.envs.isolation.threads import ThreadChannel
from palaestra.envs.registry import make, register
from palaestra.errors import DeadlineError, EnvError, WorkerError

Behaviour = Callable[[str], Any]


class Counting(Env[str, str]):
    """Counts its steps, and notes in which thread each method ran."""

    def __init__(self, notes: list[tuple[str, int]] | None = None, behave: Behaviour | None = None) -> None:
        self.notes = notes if notes is not None else []
        self.behave = behave
        self.count = 0
        self.note("make")

    def note(self, what: str) -> None:
        self.notes.append((what, threading.get_ident()))

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        self.note("reset")
        self.count = 0
        return Reset(f"seed {seed}", {})

    async def step(self, action: str) -> Step[str]:
        self.note("step")
        self.count += 1
        if self.behave is not None and asyncio.iscoroutine(waiting := self.behave(action)):
            await waiting
        return Step(f"{self.count}: {action}", 1.0, False, False, {})

    async def close(self) -> None:
        self.note("close")


class Copied(Counting):
    async def snapshot(self) -> int:
        self.note("snapshot")
        return self.count

    async def restore(self, state: int) -> None:
        self.note("restore")
        self.count = state


@pytest.fixture(autouse=True)
def registry_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    eventually(lambda: threading.active_count() <= before)


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def threaded(maker: Callable[..., Env[str, str]], *, step_seconds: float = 60.0) -> IsolatedEnv:
    placement = Placement(kind="thread", deadlines=Deadlines(step=step_seconds))
    register("test/Threaded-v0", maker, placement=placement, override=True)
    env = make("test/Threaded-v0")
    assert isinstance(env, IsolatedEnv)
    return env


def test_everything_happens_in_one_thread_of_its_own() -> None:
    notes: list[tuple[str, int]] = []

    async def play() -> None:
        async with threaded(lambda: Counting(notes)) as env:
            await env.reset(seed=3)
            assert (await env.step("a")).observation == "1: a"

    asyncio.run(play())
    assert [what for what, _ in notes] == ["make", "reset", "step", "close"]
    assert len({thread for _, thread in notes}) == 1
    assert notes[0][1] != threading.get_ident()


def test_an_environment_that_blocks_holds_up_nobody() -> None:
    async def play() -> float:
        envs = [threaded(lambda: Counting(behave=lambda _: time.sleep(0.2))) for _ in range(20)]
        await asyncio.gather(*(env.reset(seed=0) for env in envs))
        began = time.monotonic()
        await asyncio.gather(*(env.step("a") for env in envs))
        took = time.monotonic() - began
        await asyncio.gather(*(env.close() for env in envs))
        return took

    assert asyncio.run(play()) < 2.0  # one after another: 4 s


def test_an_environment_may_wait_in_a_loop_of_its_thread() -> None:
    async def behave() -> None:
        async with asyncio.timeout(30):
            await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: 7) == 7
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        assert await process.wait() == 0

    async def play() -> str:
        async with threaded(lambda: Counting(behave=lambda _: behave())) as env:
            await env.reset(seed=0)
            await env.step("a")
            observation: str = (await env.step("b")).observation
            return observation

    assert asyncio.run(play()) == "2: b"


def test_a_thread_that_blocks_is_abandoned_and_its_late_answer_dropped() -> None:
    go_on = threading.Event()
    notes: list[tuple[str, int]] = []

    async def play() -> None:
        env = threaded(lambda: Counting(notes, lambda action: action == "hang" and go_on.wait()), step_seconds=0.2)
        await env.reset(seed=0)
        with pytest.raises(DeadlineError, match=r"step took longer than 0\.2 s; its thread cannot be ended"):
            await env.step("hang")
        await env.reset(seed=1)  # in a new thread, while the old one still hangs
        assert (await env.step("a")).observation == "1: a"
        assert len({thread for what, thread in notes if what == "reset"}) == 2
        go_on.set()
        await asyncio.sleep(0.1)
        assert (await env.step("b")).observation == "2: b"
        await env.close()

    asyncio.run(play())
    eventually(lambda: [what for what, _ in notes].count("close") == 2)  # the one that hung has been closed too


def test_a_thread_that_waits_is_cancelled() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def play() -> None:
        env = threaded(lambda: Counting(behave=lambda _: forever()), step_seconds=0.1)
        await env.reset(seed=0)
        with pytest.raises(DeadlineError):
            await env.step("a")

    asyncio.run(play())
    eventually(lambda: ended == ["cancelled"])


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), ValueError("no")])
def test_whatever_it_raises_is_an_error_of_the_episode(error: BaseException) -> None:
    def behave(action: str) -> None:
        if action == "raise":
            raise error

    async def play() -> None:
        async with threaded(lambda: Counting(behave=behave)) as env:
            await env.reset(seed=0)
            with pytest.raises(EnvError, match=type(error).__name__):
                await env.step("raise")
            assert (await env.step("a")).observation == "2: a"

    asyncio.run(play())


def test_a_fork_restores_a_snapshot_in_new_threads() -> None:
    notes: list[tuple[str, int]] = []

    async def play() -> None:
        env = threaded(lambda: Copied(notes))
        await env.reset(seed=0)
        await env.step("a")
        notes.clear()
        first, second = await env.fork(2)
        assert (await first.step("b")).observation == "2: b"
        assert (await first.step("c")).observation == "3: c"
        assert (await second.step("d")).observation == "2: d"
        assert (await env.step("e")).observation == "2: e"
        await first.close()
        assert (await second.step("f")).observation == "3: f"
        await asyncio.gather(env.close(), second.close())

    asyncio.run(play())
    assert [what for what, _ in notes].count("snapshot") == 1
    assert len({thread for what, thread in notes if what in ("make", "restore")}) == 2


def test_without_snapshots_a_fork_is_a_replay() -> None:
    async def play() -> None:
        env = threaded(Counting)
        await env.reset(seed=0)
        await env.step("a")
        assert env._channel is not None
        with pytest.raises(CannotFork):
            await env._channel.fork(1)
        (sibling,) = await env.fork()
        assert (await sibling.step("b")).observation == "2: b"
        await asyncio.gather(env.close(), sibling.close())

    asyncio.run(play())


def test_a_snapshot_that_fails_is_an_error_and_the_episode_goes_on() -> None:
    class Broken(Copied):
        async def snapshot(self) -> int:
            raise ValueError("no picture")

    class Unrestorable(Copied):
        async def restore(self, state: int) -> None:
            raise ValueError("no way back")

    async def play(maker: type[Copied], message: str) -> None:
        async with threaded(maker) as env:
            await env.reset(seed=0)
            with pytest.raises(EnvError, match=message):
                await env.fork(3)
            assert (await env.step("a")).observation == "1: a"

    asyncio.run(play(Broken, "ValueError: no picture"))
    asyncio.run(play(Unrestorable, "ValueError: no way back"))


def test_a_fork_in_which_one_hangs_leaves_no_task() -> None:
    go_on = threading.Event()
    restored: list[int] = []

    class Second(Copied):
        async def restore(self, state: int) -> None:
            restored.append(state)
            if len(restored) == 2:
                raise ValueError("no way back")
            go_on.wait()

    async def play() -> None:
        async with threaded(Second) as env:
            await env.reset(seed=0)
            with pytest.raises(EnvError, match="no way back"):
                await env.fork(2)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            go_on.set()

    asyncio.run(play())


def test_500_instances_take_no_descriptor_and_leave_nothing() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def play() -> int:
        before = descriptors()
        envs = [threaded(Counting) for _ in range(500)]
        await asyncio.gather(*(env.reset(seed=0) for env in envs))
        await asyncio.gather(*(env.step("a") for env in envs))
        more = descriptors() - before
        await asyncio.gather(*(env.close() for env in envs))
        return more

    assert asyncio.run(play()) <= 0


def test_a_channel_that_is_forgotten_ends_its_thread() -> None:
    notes: list[tuple[str, int]] = []

    async def play() -> None:
        env = threaded(lambda: Counting(notes))
        await env.reset(seed=0)

    asyncio.run(play())
    gc.collect()
    eventually(lambda: notes[-1][0] == "close")


def test_closing_a_channel_closes_its_environment() -> None:
    notes: list[tuple[str, int]] = []

    async def play() -> None:
        env = threaded(lambda: Counting(notes))
        assert env.spec is not None
        channel = ThreadChannel()
        await channel.call(Make(env.spec))
        assert isinstance(await channel.call(Ask("close")), Value)
        await channel.close()
        other = ThreadChannel()
        await other.call(Make(env.spec))
        await other.close()
        other.kill()  # what is closed can be killed: nothing happens
        with pytest.raises(WorkerError):
            await other.call(Ask("close"))

    asyncio.run(play())
    assert [what for what, _ in notes] == ["make", "close"] * 2


def test_a_hung_thread_does_not_keep_the_process() -> None:
    program = """
import asyncio, time
from palaestra import Env, Reset, make, register
from palaestra.envs.isolation.placement import Deadlines, Placement

class Hung(Env):
    async def reset(self, *, seed=None, task=None, options=None):
        time.sleep(600)

async def main():
    env = make("test/Hung-v0")
    try:
        await env.reset(seed=0)
    except Exception as error:
        print(type(error).__name__)

register("test/Hung-v0", Hung, placement=Placement(kind="thread", deadlines=Deadlines(reset=0.2)))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("DeadlineError\n", "")


def test_deep_recursion_is_an_error_and_no_crash() -> None:
    class Deep:
        def __repr__(self) -> str:
            return repr([self])  # through C and back

    async def play() -> None:
        async with threaded(lambda: Counting(behave=lambda _: repr(Deep()))) as env:
            await env.reset(seed=0)
            with pytest.raises(EnvError, match="RecursionError"):
                await env.step("a")

    asyncio.run(play())


def test_too_many_threads_is_an_error_that_helps() -> None:
    program = """
import asyncio, resource
from palaestra.envs.isolation.threads import STACK_BYTES, ThreadChannel

async def main():
    channels = [ThreadChannel()]
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * STACK_BYTES, -1))
    try:
        for _ in range(400):
            channels.append(ThreadChannel())
    except Exception as error:
        print(type(error).__name__, error)
    await asyncio.gather(*(channel.close() for channel in channels))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("WorkerError cannot start a thread for an environment")
    assert done.stderr == ""
