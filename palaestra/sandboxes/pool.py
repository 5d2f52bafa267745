"""A pool of sandboxes that are started before they are wanted.

Each is handed out once, after it has shown that it lives, and never comes back: whoever took it closes it. Others are
started in its place, a few at a time. Those that die while they wait are replaced; an engine that starts none is asked
again ever more rarely, and whoever waits meanwhile is told why.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from palaestra.errors import ConfigError, PalaestraError, SandboxDaemonError, SandboxError, SandboxImageError
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.spec import SandboxSpec

_ANSWER_SECONDS = 5.0
"""In which a sandbox that waits must show that it lives."""
_BACK_OFF, _LONGEST_BACK_OFF = 0.25, 15.0
"""Seconds after a failed start before the next one, doubled each time, and the most."""
_STALE_SECONDS = 3600.0
"""Age from which one that waits is replaced: engines are told how long a container may be there at most."""
_PATIENT = 3
"""Failed starts in a row after which those who wait are told, and, where nobody waits, no more are tried."""


class Pool:
    """Sandboxes of one spec, ready. `async with` fills it in the background and closes it. Belongs to one event loop.

    Example:
        ```
        async with Pool(backend, spec, size=8) as pool:
            async with pool.take() as sandbox:
                await sandbox.exec(Exec(shell="make test"))
        ```
    """

    def __init__(
        self,
        backend: Backend,
        spec: SandboxSpec,
        size: int,
        *,
        at_once: int = 4,
        queue: int = 1024,
        patience: float = 120.0,
        check: float = 10.0,
    ) -> None:
        """A pool that has started nothing yet; the first `take`, `fill` or `async with` does.

        Args:
            backend: what starts them; it stays the caller's.
            spec: what they are.
            size: how many are kept ready.
            at_once: how many are started at once.
            queue: how many may wait for one; to any more `take` raises an error.
            patience: seconds that `take` waits at most.
            check: seconds between two looks at those that wait, which also renew their lifetimes.

        Raises:
            ConfigError: a number makes no sense.
        """
        if size < 1 or at_once < 1 or queue < 0 or not patience > 0 or not check > 0:
            raise ConfigError("a pool keeps 1 sandbox or more ready, starts 1 or more at once, and has positive times")
        self.backend, self.spec, self.size = backend, spec, size
        self._at_once, self._most_waiting, self._patience = at_once, queue, patience
        self._check = min(check, spec.limits.lifetime / 3)
        self._ready: deque[tuple[Sandbox, float]] = deque()
        self._waiting: deque[asyncio.Future[Sandbox]] = deque()
        self._filling: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: set[asyncio.Task[Any]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._failures, self._failure, self._silence = 0, "", ""
        self._closed = False

    @property
    def ready(self) -> int:
        """Sandboxes that wait to be taken."""
        return len(self._ready)

    @property
    def starting(self) -> int:
        """Sandboxes that are being started."""
        return len(self._starting)

    @property
    def waiting(self) -> int:
        """Calls of `take` that wait for a sandbox."""
        return len(self._waiting)

    def take(self) -> Taking:
        """A sandbox that has just answered: `await pool.take()`, to be closed by the caller, or `async with`.

        Raises:
            ConfigError: the back end cannot do what the spec says.
            SandboxImageError: there is no such image, or it lacks what is needed.
            SandboxDaemonError: the engine cannot be reached, or refuses, time and again.
            SandboxError: too many wait, none has come in time, or the pool is closed.
        """
        return Taking(self)

    async def fill(self) -> None:
        """Return when as many are ready as the pool keeps.

        Raises:
            ConfigError, SandboxImageError, SandboxDaemonError, SandboxError: as `take`.
        """
        if self._closed:
            raise SandboxError("the pool is closed")
        if len(self._ready) >= self.size:
            return
        full: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._filling.add(full)
        self._refill()
        try:
            await full
        finally:
            self._filling.discard(full)

    async def close(self) -> None:
        """Close all that were not taken, and return when they are gone. May be called more than once."""
        if not self._closed:
            self._closed = True
            self._stop()
        while tasks := [*self._starting, *self._tasks, *([self._watcher] if self._watcher else [])]:
            await asyncio.wait(tasks)  # which, cancelled itself, does not cancel them: they undo what they have begun
            if self._watcher is not None and self._watcher.done():
                self._watcher = None

    def _stop(self) -> None:
        """Start no more, and let go of what nobody has taken."""
        if self._again is not None:
            self._again.cancel()
        self._tell(SandboxError("the pool is closed"))
        for task in (*self._starting, *([self._watcher] if self._watcher else [])):
            task.cancel()
        while self._ready:
            self._discard(self._ready.popleft()[0])

    async def __aenter__(self) -> Self:
        self._refill()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _take(self) -> Sandbox:
        try:
            async with asyncio.timeout(self._patience):
                for _ in range(self.size + _PATIENT):  # all that waited may have died, but hardly more
                    sandbox = await self._next()
                    if await self._is_good(sandbox):
                        return sandbox
        except TimeoutError:
            why = f"the last start failed: {self._failure}" if self._failures else f"{self.starting} are being started"
            raise SandboxError(f"no sandbox within {self._patience:g} s; {why}; is the machine overloaded?") from None
        raise SandboxError(f"sandboxes start and then do not answer: {self._silence or 'they say nothing'}")

    async def _next(self) -> Sandbox:
        """One of the ready ones, or the next that is; others are started in its place."""
        if self._closed:
            raise SandboxError("the pool is closed")
        if self._ready and not self._waiting:
            sandbox, _ = self._ready.popleft()
            self._refill()
            return sandbox
        if len(self._waiting) >= self._most_waiting:
            mend = "take fewer at once, or give the pool a longer queue"
            raise SandboxError(f"{len(self._waiting)} wait for a sandbox of this pool already; {mend}")
        return await self._wait()

    async def _wait(self) -> Sandbox:
        turn: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._refill()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._offer(turn.result())  # it came in the same moment
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(turn)

    async def _is_good(self, sandbox: Sandbox) -> bool:
        """Whether it lives; if not, or if nobody waits for it any more, it is closed."""
        good = False
        try:
            good = await self._answers(sandbox)
        finally:
            if not good:
                self._discard(sandbox)
        return good

    async def _answers(self, sandbox: Sandbox) -> bool:
        """Whether it lives. If so, its lifetime begins anew."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await sandbox.renew()
        except (PalaestraError, OSError) as error:  # a time-out is one of the latter
            self._silence = str(error)
            return False
        return True

    def _offer(self, sandbox: Sandbox) -> None:
        """Give it to who has waited longest, or keep it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(sandbox)
                return
        if self._closed or len(self._ready) >= self.size:
            self._discard(sandbox)
        else:
            self._ready.append((sandbox, asyncio.get_running_loop().time()))
        if len(self._ready) >= self.size:
            _resolve(self._filling)

    def _refill(self) -> None:
        """Start as many as are missing, unless starts have just failed."""
        if self._closed or self._again is not None:
            return
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="pool: watch")
        if self._failures >= _PATIENT and not self._waiting and not self._filling:
            return  # whoever comes next tries again
        wanted = self.size + len(self._waiting) - len(self._ready)
        most = 1 if self._failures else self._at_once
        while len(self._starting) < min(wanted, most):
            task = asyncio.create_task(self._start(), name="pool: start")
            self._starting.add(task)
            task.add_done_callback(self._started)

    async def _start(self) -> None:
        try:
            sandbox = await self.backend.start(self.spec)
        except Exception as error:  # whatever it is: those who wait have to know
            self._failed(error)
        else:
            self._failures = 0
            if task := asyncio.current_task():
                self._starting.discard(task)  # it counts among the ready ones now
            self._offer(sandbox)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        self._refill()

    def _failed(self, error: Exception) -> None:
        self._failures, self._failure = self._failures + 1, str(error)
        if self._failures >= _PATIENT or not _may_pass(error):
            self._failures = max(self._failures, _PATIENT)
            self._tell(error)
        if self._again is None and not self._closed:
            seconds = min(_LONGEST_BACK_OFF, _BACK_OFF * 2.0 ** (self._failures - 1))
            self._again = asyncio.get_running_loop().call_later(seconds, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        self._refill()

    def _tell(self, error: Exception) -> None:
        """Fail all who wait, each with an error of its own."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(_copy(error))
        for full in self._filling:
            if not full.done():
                full.set_exception(_copy(error))
        self._waiting.clear()
        self._filling.clear()

    async def _watch(self) -> None:
        """Look at those that wait, again and again; close and replace the dead and the old."""
        while True:
            await asyncio.sleep(self._check)
            old = asyncio.get_running_loop().time() - _STALE_SECONDS
            for each in list(self._ready):
                if each in self._ready and not (each[1] > old and await self._answers(each[0])) and each in self._ready:
                    self._ready.remove(each)
                    self._discard(each[0])
                    self._refill()

    def _discard(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """Close it in the background, or when the pool is closed; what cannot be removed is the reaper's."""
        task = asyncio.create_task(_closed(sandbox), name="pool: close")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Taking:
    """What `Pool.take` gives: awaited it is a sandbox; entered it is one that is closed in the end."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sandbox: Sandbox | None = None

    def __await__(self) -> Generator[Any, None, Sandbox]:
        return self._pool._take().__await__()

    async def __aenter__(self) -> Sandbox:
        self._sandbox = await self._pool._take()
        return self._sandbox

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sandbox is not None:
            await asyncio.shield(self._pool._discard(self._sandbox))


_PLAIN = frozenset((SandboxError, SandboxDaemonError, SandboxImageError, ConfigError))
"""Errors that are made of their message alone, so that each who waits can have one."""


def _may_pass(error: Exception) -> bool:
    """Whether it may help to try again."""
    return isinstance(error, SandboxError | OSError) and not isinstance(error, SandboxImageError)


def _resolve(futures: set[asyncio.Future[None]]) -> None:
    for each in futures:
        if not each.done():
            each.set_result(None)
    futures.clear()


def _copy(error: Exception) -> Exception:
    """An error for one of several who wait: raised by all, one would collect the places of all."""
    told = type(error)(str(error)) if type(error) in _PLAIN else SandboxError(f"no sandbox starts: {error}")
    told.__cause__ = error
    return told


async def _closed(sandbox: Sandbox) -> None:
    with suppress(PalaestraError, OSError):
        await sandbox.close()
