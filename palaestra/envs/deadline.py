"""Deadlines on everything that an environment does, whether it waits, blocks or refuses to be cancelled."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from palaestra.envs.core import Env, Reset, Step
from palaestra.errors import DeadlineError, EnvError
from palaestra.interrupts import cancelling

T = TypeVar("T")

TIMED = ("oracle", "verify", "snapshot", "restore", "render")
_BEAT = 0.1
"""Seconds between two signs of life of the event loop."""
_GRACE = 1.0
"""Seconds that something cancelled has to leave, and that the loop may be late."""


class Blocked(BaseException):
    """Raised in code that keeps the event loop from running; no `except Exception` catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Most seconds."""

    call: float = 60.0
    """Of one call: make, start, reset, step, fork, close."""
    check: float = 600.0
    """Of one check."""


class Watch:
    """Awaits what an environment does, no longer than it may take."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    async def __call__(self, what: str, work: Awaitable[T], seconds: float | None = None) -> T:
        """The result of `work`.

        Raises:
            DeadlineError: it took longer; it was cancelled, or left to itself if it ignores that.
            EnvError: it tried to end the process, or claims to have been cancelled.
        """
        seconds = self.limits.call if seconds is None else seconds
        task = asyncio.ensure_future(_contained(what, work))
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if not done:
                task.cancel()
                stopped, _ = await asyncio.wait({task}, timeout=_GRACE)
                with suppress(BaseException):
                    task.exception() if stopped else None
                stubborn = "" if stopped else " and ignores being cancelled"
                raise DeadlineError(f"{what} took longer than {seconds:g} s{stubborn}")
            return task.result()
        finally:
            task.cancel()


async def _contained(what: str, work: Awaitable[T]) -> T:
    """`work`, with what would end the loop or the process made an error."""
    try:
        return await work
    except SystemExit as error:
        raise EnvError(f"{what} called sys.exit({error.code!r}); raise an error instead") from error
    except Blocked as error:
        raise DeadlineError(f"{what} {error}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise EnvError(f"{what} raised CancelledError though nobody had cancelled it") from error
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise EnvError(f"{what} raised {type(error).__name__}: {error}; raise an Exception instead") from error


class Timed(Env[Any, Any]):
    """An environment whose every call has a deadline; it has what the one inside has."""

    def __init__(self, env: Env[Any, Any], watch: Watch) -> None:
        self.inner, self._watch = env, watch
        self.spec = env.spec

    async def start(self) -> None:
        """Get ready."""
        await self._watch("start", self.inner.start())

    async def reset(self, **kwargs: Any) -> Reset[Any]:
        """Begin an episode."""
        return await self._watch("reset", self.inner.reset(**kwargs))

    async def step(self, action: Any) -> Step[Any]:
        """Take one action."""
        return await self._watch("step", self.inner.step(action))

    async def fork(self, n: int = 1) -> list[Env[Any, Any]]:
        """Make continuations, each with deadlines too."""
        return [Timed(sibling, self._watch) for sibling in await self._watch("fork", self.inner.fork(n))]

    async def close(self) -> None:
        """Release everything."""
        await self._watch("close", self.inner.close())

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__dict__["inner"], name)
        if name not in TIMED:
            return found

        async def timed(*args: Any) -> Any:
            return await self._watch(name, found(*args))

        return timed


@contextmanager
def unblocking(seconds: float) -> Iterator[None]:
    """Raise `Blocked` in code that keeps the running loop from its other work for longer than `seconds`.

    Works in the main thread, on code that comes back to the interpreter now and then; elsewhere nothing happens.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_kill"):
        yield
        return
    guard = _Guard(asyncio.get_running_loop(), seconds + _GRACE)
    before = signal.signal(signal.SIGUSR2, guard.interrupt)
    guard.start()
    try:
        yield
    finally:
        guard.stop()
        signal.signal(signal.SIGUSR2, before)


class _Guard:
    """A thread that looks after the loop's signs of life."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop, self.seconds = loop, seconds
        self._last = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="palaestra-check-guard", daemon=True)
        self._beating: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self._beating:
            self._beating.cancel()
        self._thread.join()

    def _beat(self) -> None:
        self._last = time.monotonic()
        self._beating = self.loop.call_later(_BEAT, self._beat)

    def _look(self) -> None:
        main = threading.main_thread().ident
        while not self._over.wait(_BEAT):
            if main is not None and time.monotonic() - self._last > self.seconds:
                signal.pthread_kill(main, signal.SIGUSR2)
                self._over.wait(self.seconds)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler, in the main thread: what runs there has kept it too long."""
        if time.monotonic() - self._last > self.seconds:
            self._last = time.monotonic()
            raise Blocked(f"blocked the event loop for {self.seconds - _GRACE:g} s{_where(frame)}")


def _where(frame: FrameType | None) -> str:
    return f", in {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""


def run_to_the_end(main: Coroutine[Any, Any, T], *, cancellable: bool = False) -> T:
    """`asyncio.run`, except that a task that ignores being cancelled does not keep it from returning.

    Args:
        main: what to run.
        cancellable: whether the first Ctrl-C cancels `main`, as under `asyncio.run`, rather than break into what runs.
    """
    runner = asyncio.Runner()
    try:
        if not cancellable:
            return runner.get_loop().run_until_complete(main)
        with cancelling():
            return runner.run(main)
    finally:
        # Never `Runner.close`: that waits for every task.
        try:
            _leave(runner.get_loop())
        finally:
            asyncio.set_event_loop(None)


def _leave(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=_GRACE))
    stubborn = [task for task in left if not task.done()]
    for task in stubborn:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # nobody waits for it any more
    with suppress(BaseException):
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), _GRACE))
    executor = getattr(loop, "_default_executor", None)
    if executor is not None:
        executor.shutdown(wait=False, cancel_futures=True)
    loop.close()
