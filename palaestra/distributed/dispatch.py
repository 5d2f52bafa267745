"""Dispatch: work for workers that may die, each piece done and counted once.

This knows nothing of Ray, environments or weights: tests and `benchmarks/scale_simulation.py` let it share out work
among invented workers on an invented clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from palaestra.errors import TrainingError

J = TypeVar("J", bound=Sized)
J_contra = TypeVar("J_contra", bound=Sized, contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class WorkerLost(Exception):
    """A worker died, or can no longer be reached; what it was doing has no result."""


class JobAbandoned(Exception):
    """Whoever tried to do it died, too often; the message says of what."""


class Worker(Protocol[J_contra, R_co]):
    """Does jobs, several at once."""

    @property
    def places(self) -> int:
        """Most that it does at once, in what `len` counts of a job."""

    async def ready(self) -> None:
        """Return once it can work: at the start, and again after it was lost.

        Raises:
            Exception: it never will.
        """

    async def do(self, job: J_contra) -> R_co:
        """Do it.

        Raises:
            WorkerLost: the worker is gone; somebody else may do the job.
            Exception: whoever did it would fail in the same way.
        """


@dataclass(slots=True, eq=False)
class _Post(Generic[J, R]):
    """A worker and its room."""

    worker: Worker[J, R]
    number: int
    free: int
    present: bool = False
    """Whether it can work at present."""


@dataclass(slots=True, eq=False)
class _Ticket(Generic[J, R]):
    """A job on its way."""

    job: J
    result: asyncio.Future[R]
    deaths: int = 0
    """How many workers were lost while they did it."""


@dataclass
class Dispatcher(Generic[J, R]):
    """Shares jobs out: the oldest to whoever has most room; those of a lost worker go to others, before anything else.

    A job's result is taken once, from whoever brings it first. All calls belong to one event loop.
    """

    workers: Sequence[Worker[J, R]]
    deaths: int = 5
    """A job is abandoned once this many workers were lost while they did it: it may be what kills them."""
    start_seconds: float = 300.0
    """How long there may be no worker at all, at the start and later."""
    lost: int = field(default=0, init=False)
    """How often a worker was lost."""

    def __post_init__(self) -> None:
        self._posts = [_Post(worker, number, max(1, worker.places)) for number, worker in enumerate(self.workers)]
        self._waiting: list[tuple[int, _Ticket[J, R]]] = []
        """A heap by age."""
        self._roomy: list[tuple[int, int, _Post[J, R]]] = []
        """A heap of posts, most room first; an entry that is no longer true is skipped."""
        self._ages = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone: BaseException | None = None
        """Why the last worker of all will not work again."""
        self._started = False
        self._staffed = asyncio.Event()

    async def do(self, job: J) -> R:
        """The result of a job, whoever does it; any number of calls may wait at once.

        Raises:
            JobAbandoned: see `deaths`.
            TrainingError: no worker is left, and none came back within `start_seconds`, or ever will.
            Exception: the job failed; it is not tried again.
        """
        self._start()
        ticket: _Ticket[J, R] = _Ticket(job, asyncio.get_running_loop().create_future())
        self._queue(next(self._ages), ticket)
        return await ticket.result

    async def staffed(self) -> None:
        """Return while any worker can work, or once one can.

        Raises:
            TrainingError: none could within `start_seconds`, or none ever will.
        """
        self._start()
        try:
            async with asyncio.timeout(self.start_seconds):
                await self._staffed.wait()
        except TimeoutError:
            missing = "no worker is left, and none has come back" if self.lost else "no worker has started"
            raise TrainingError(f"{missing} within {self.start_seconds:g} s") from None
        if self._gone is not None:
            raise TrainingError(f"no worker is left: {self._gone}")

    async def close(self) -> None:
        """Stop; jobs that are not done are cancelled."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        for _, ticket in self._waiting:
            ticket.result.cancel()
        self._waiting.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for post in self._posts:
                self._spawn(self._await(post))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _await(self, post: _Post[J, R]) -> None:
        """Until the worker can work."""
        try:
            await post.worker.ready()
        except Exception as error:  # it never will; the others go on
            self._posts.remove(post)
            if not self._posts:
                self._fail_all(error)
            return
        post.present = True
        self._staffed.set()
        self._offer(post)
        self._match()

    def _fail_all(self, error: BaseException) -> None:
        self._gone = error
        self._staffed.set()
        self._dismiss(f"no worker is left: {error}")

    def _dismiss(self, reason: str) -> None:
        for _, ticket in self._waiting:
            _fail(ticket, TrainingError(reason))
        self._waiting.clear()

    def _queue(self, age: int, ticket: _Ticket[J, R]) -> None:
        if self._gone is not None:
            _fail(ticket, TrainingError(f"no worker is left: {self._gone}"))
            return
        heapq.heappush(self._waiting, (age, ticket))
        self._match()

    def _offer(self, post: _Post[J, R]) -> None:
        heapq.heappush(self._roomy, (-post.free, post.number, post))

    def _match(self) -> None:
        """Give out what waits, as long as there is room."""
        while self._waiting:
            age, ticket = self._waiting[0]
            if ticket.result.done():  # its caller has gone
                heapq.heappop(self._waiting)
                continue
            post = self._roomiest()
            # A job that is larger than a worker has it to itself.
            if post is None or post.free < min(len(ticket.job), max(1, post.worker.places)):
                return
            heapq.heappop(self._waiting)
            heapq.heappop(self._roomy)
            post.free -= len(ticket.job)
            self._offer(post)
            work = self._spawn(self._do(post, age, ticket))
            ticket.result.add_done_callback(partial(_cancel_with, work))
            work.add_done_callback(partial(_cancel_with, ticket.result))  # `close` cancels the work

    def _roomiest(self) -> _Post[J, R] | None:
        while self._roomy:
            room, _, post = self._roomy[0]
            if post.present and -room == post.free:
                return post
            heapq.heappop(self._roomy)
        return None

    async def _do(self, post: _Post[J, R], age: int, ticket: _Ticket[J, R]) -> None:
        try:
            result = await post.worker.do(ticket.job)
        except WorkerLost as error:
            self._lose(post)
            self._again(age, ticket, error)
        except Exception as error:
            _fail(ticket, error)
        else:
            if not ticket.result.done():
                ticket.result.set_result(result)
        finally:
            post.free += len(ticket.job)
            if post.present:
                self._offer(post)
            self._match()

    def _lose(self, post: _Post[J, R]) -> None:
        """The first job that finds its worker gone says so for all."""
        if post.present:
            post.present = False
            self.lost += 1
            self._spawn(self._await(post))
            if not any(other.present for other in self._posts):
                self._staffed.clear()
                self._spawn(self._restaffed())

    async def _restaffed(self) -> None:
        """Whoever waits is told, should nobody come back."""
        try:
            await self.staffed()
        except TrainingError as error:
            self._dismiss(str(error))

    def _again(self, age: int, ticket: _Ticket[J, R], error: WorkerLost) -> None:
        ticket.deaths += 1
        if ticket.deaths >= self.deaths:
            _fail(ticket, JobAbandoned(f"{ticket.deaths} workers were lost while they played it: {error}"))
        else:
            self._queue(age, ticket)


def _cancel_with(other: asyncio.Future[Any], ended: asyncio.Future[Any]) -> None:
    if ended.cancelled():
        other.cancel()


def _fail(ticket: _Ticket[Any, Any], error: BaseException) -> None:
    if not ticket.result.done():
        ticket.result.set_exception(error)
