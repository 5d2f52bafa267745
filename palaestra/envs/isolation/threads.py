"""Environments in threads: each instance in one of its own, which makes it, steps it and closes it.

For code that blocks but is safe beside other threads. A thread shares everything with this process: it cannot be
ended from outside, its memory has no limit of its own, and code that ends the process ends all of it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from palaestra.envs.core import SupportsSnapshot
from palaestra.envs.isolation.channel import CannotFork, Channel
from palaestra.envs.isolation.host import Host, failure
from palaestra.envs.isolation.lazyloop import LazyLoop
from palaestra.envs.isolation.protocol import Call, Failed, Make, Result
from palaestra.envs.registry import EnvSpec
from palaestra.errors import EnvError, WorkerError

T = TypeVar("T")

STACK_BYTES = 4 * 2**20
"""Of a thread: enough for Python's recursion limit through C code; only what is touched takes memory."""

_starting = threading.Lock()
"""The size of a stack is a setting of the whole process, so one thread is started at a time."""


@dataclass(slots=True)
class _Job:
    """Something to do in the thread, and who waits for it."""

    work: Callable[[Host], Coroutine[Any, Any, Any]]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]

    def settle(self, value: Any, error: BaseException | None = None) -> None:
        """Hand over what came of it, from the thread. Nobody hears it who has stopped waiting."""
        with suppress(RuntimeError):  # the loop of who waited is closed
            self.loop.call_soon_threadsafe(_settle, self.answer, value, error)


def _settle(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():  # cancelled: the answer is late
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)


class ThreadChannel:
    """A channel to an environment in a daemon thread of its own.

    What hangs while it waits in its event loop can be cancelled. A thread that blocks can only be abandoned: its
    late answer is dropped, and it closes its environment and ends when the code that it is in comes back.
    """

    def __init__(self) -> None:
        """Start the thread.

        Raises:
            WorkerError: there can be no more threads.
        """
        self._far = _FarSide()
        _start(self._far)
        # A channel that is forgotten ends its thread, which holds the far side only.
        weakref.finalize(self, self._far.jobs.put, None).atexit = False

    async def call(self, call: Call) -> Result:
        """Have it done in the thread."""
        return await self._run(lambda host: _answer(host, call))

    async def fork(self, n: int) -> list[Channel]:
        """Snapshot the environment in its thread and restore it in `n` new ones, each made there.

        Raises:
            CannotFork: it has no snapshots.
            EnvError: it could not be made or restored once more.
        """
        spec, state = await self._run(_snapshot)
        siblings: list[ThreadChannel] = []
        restoring: list[asyncio.Task[None]] = []
        try:
            for _ in range(n):
                siblings.append(sibling := ThreadChannel())
                restoring.append(asyncio.create_task(sibling._run(lambda host: _restore(host, spec, state))))
            await asyncio.gather(*restoring)
        except BaseException:
            for task, sibling in zip(restoring, siblings, strict=True):
                task.cancel()
                sibling.kill()
            raise
        return [*siblings]

    async def close(self) -> None:
        """Close what is still open, and let the thread end."""
        with suppress(Exception):
            await self._run(Host.close)
        self._far.end()

    def kill(self) -> None:
        """Cancel what waits in the thread, abandon what blocks; the environment is closed when that is over."""
        self._far.end()

    async def _run(self, work: Callable[[Host], Coroutine[Any, Any, T]]) -> T:
        if self._far.ended:
            raise _ended()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._far.jobs.put(_Job(work, loop, answer))
        return await answer


class _FarSide:
    """What the thread owns: the environment, the event loop, and the queue of what to do."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.ended = False
        self._host = Host()
        self._loop = LazyLoop()
        self._task: asyncio.Task[Any] | None = None

    def serve(self) -> None:
        """Do one job after another until there is a `None`; the thread's whole life."""
        asyncio.set_event_loop(self._loop)
        while (job := self.jobs.get()) is not None:
            if self.ended:
                job.settle(None, _ended())
            elif not job.answer.cancelled():
                self._do(job)
            del job  # while it waits, a thread should hold no observation
        self._finish()

    def _do(self, job: _Job) -> None:
        try:
            value: Any = self._wait(job.work(self._host))
            error: EnvError | None = None
        except EnvError as raised:
            value, error = None, raised
        except BaseException as raised:
            value, error = None, EnvError(f"{type(raised).__name__}: {raised}")
        job.settle(value, error)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = task = self._loop.create_task(work)
        if self.ended:  # by a `kill` that came before there was a task to cancel
            task.cancel()
        try:
            return self._loop.run_until_complete(task)
        finally:
            self._task = None

    def end(self) -> None:
        """From any thread: do nothing more, cancel what waits, close the environment as soon as possible."""
        self.ended = True
        self.jobs.put(None)
        if (task := self._task) is not None:
            with suppress(RuntimeError):  # the thread has just finished
                self._loop.call_soon_threadsafe(task.cancel)

    def _finish(self) -> None:
        """Close the environment, the tasks that it left behind and the loop, whatever they raise."""
        with suppress(BaseException):
            self._loop.run_until_complete(self._host.close())
        with suppress(BaseException):
            self._loop.run_until_complete(_cancel_all())
        with suppress(BaseException):
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def _ended() -> WorkerError:
    return WorkerError("the thread of the environment was ended; call reset to begin again")


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _start(far: _FarSide) -> None:
    thread = threading.Thread(target=far.serve, name="palaestra-env", daemon=True)
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        except RuntimeError as error:
            far._loop.close()
            raise WorkerError(
                f"cannot start a thread for an environment ({error}); limit their number by the placement's "
                f"concurrency, or raise the limit of processes (ulimit -u)"
            ) from error
        finally:
            threading.stack_size(before)


async def _answer(host: Host, call: Call) -> Result:
    try:
        return await host.answer(call)
    except BaseException as error:  # exit() in an environment ends its episode, not the thread
        return failure(error)


async def _snapshot(host: Host) -> tuple[EnvSpec, Any]:
    env = host.env
    if env is None or env.spec is None:
        raise CannotFork("the environment is not made yet, or closed")
    if not isinstance(env, SupportsSnapshot):
        raise CannotFork("an environment without snapshots cannot be copied in its thread")
    return env.spec, await env.snapshot()


async def _restore(host: Host, spec: EnvSpec, state: Any) -> None:
    made = await host.answer(Make(spec))
    if isinstance(made, Failed) or not isinstance(host.env, SupportsSnapshot):
        raise EnvError(f"cannot make {spec.id!r} once more for a fork: {getattr(made, 'message', made)}")
    await host.env.restore(state)
