"""Dispatch among invented workers, on a clock that never waits."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import virtual_time

from palaestra.distributed.dispatch import Dispatcher, JobAbandoned, WorkerLost
from palaestra.errors import ConfigError, TrainingError

Job = tuple[int, ...]


@dataclass
class Invented:
    """Takes seconds for a job, and dies now and then."""

    places: int = 4
    seed: int = 0
    deadly: float = 0.0
    """Chance of a death during a job."""
    broken: bool = False
    """Never starts."""
    poison: int = -1
    """A job that always kills."""
    busy: int = 0
    most: int = 0
    begun: list[Job] = field(default_factory=list)
    died: "asyncio.Future[None] | None" = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    async def ready(self) -> None:
        await asyncio.sleep(self.random.uniform(0, 2))
        if self.broken:
            raise ConfigError("its package is missing")
        self.died = asyncio.get_running_loop().create_future()

    async def do(self, job: Job) -> list[int]:
        died = self.died
        assert died is not None
        if died.done():
            raise WorkerLost("it is dead")
        self.begun.append(job)
        self.busy += len(job)
        self.most = max(self.most, self.busy)
        try:
            await asyncio.wait((died,), timeout=self.random.lognormvariate(0, 1))
            if self.poison in job or self.random.random() < self.deadly:
                died.done() or died.set_result(None)
            if died.done():
                raise WorkerLost("it died")
            return [2 * number for number in job]
        finally:
            self.busy -= len(job)


def jobs_of(count: int, size: int) -> list[Job]:
    return [tuple(range(start, start + size)) for start in range(0, count * size, size)]


async def all_of(dispatcher: Dispatcher[Job, list[int]], jobs: list[Job]) -> list[list[int] | BaseException]:
    try:
        return await asyncio.gather(*map(dispatcher.do, jobs), return_exceptions=True)
    finally:
        await dispatcher.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 30), st.integers(1, 6), st.floats(0, 0.4), st.integers(0, 2**16))
def test_no_job_is_lost_or_counted_twice(workers: int, count: int, size: int, deadly: float, seed: int) -> None:
    crew = [Invented(seed=seed + number, deadly=deadly) for number in range(workers)]
    dispatcher = Dispatcher[Job, list[int]](crew, deaths=10**6)
    jobs = jobs_of(count, size)
    results = virtual_time.run(all_of(dispatcher, jobs))
    assert results == [[2 * number for number in job] for job in jobs]
    assert all(worker.most <= max(worker.places, size) for worker in crew)
    assert all(worker.busy == 0 for worker in crew)


def test_work_is_spread_and_the_places_are_used() -> None:
    crew = [Invented(places=4, seed=number) for number in range(3)]
    virtual_time.run(all_of(Dispatcher(crew), jobs_of(60, 2)))
    shares = [len(worker.begun) for worker in crew]
    assert sum(shares) == 60
    assert min(shares) > 10
    assert [worker.most for worker in crew] == [4, 4, 4]


def test_what_kills_whoever_does_it_is_abandoned_and_the_rest_is_done() -> None:
    crew = [Invented(seed=number, poison=7) for number in range(3)]
    dispatcher = Dispatcher[Job, list[int]](crew, deaths=4)
    results = virtual_time.run(all_of(dispatcher, jobs_of(20, 1)))
    assert isinstance(results[7], JobAbandoned)
    assert "4 workers were lost" in str(results[7])
    assert [r for i, r in enumerate(results) if i != 7] == [[2 * i] for i in range(20) if i != 7]
    tries = Counter(job for worker in crew for job in worker.begun)
    assert tries[(7,)] == 4
    assert dispatcher.lost == 4


def test_a_worker_that_never_starts_leaves_its_work_to_the_others() -> None:
    crew = [Invented(broken=True), Invented(seed=1)]
    assert len(virtual_time.run(all_of(Dispatcher(crew), jobs_of(9, 1)))) == 9
    with pytest.raises(TrainingError, match="no worker is left: its package is missing"):
        virtual_time.run(Dispatcher([Invented(broken=True)]).staffed())
    with pytest.raises(TrainingError, match="no worker has started within 0.001 s"):
        virtual_time.run(Dispatcher([Invented()], start_seconds=0.001).staffed())
    with pytest.raises(TrainingError, match="no worker is left: its package is missing"):
        virtual_time.run(Dispatcher([Invented(broken=True)]).do((1,)))


def test_a_job_that_fails_is_not_tried_again() -> None:
    class Failing(Invented):
        async def do(self, job: Job) -> list[int]:
            self.begun.append(job)
            raise ConfigError("it makes no sense")

    worker = Failing()
    with pytest.raises(ConfigError, match="no sense"):
        virtual_time.run(Dispatcher([worker]).do((1,)))
    assert worker.begun == [(1,)]


def test_a_caller_that_goes_frees_the_place() -> None:
    class Slow(Invented):
        async def do(self, job: Job) -> list[int]:
            try:
                await asyncio.sleep(1e6 if job == (0,) else 1)
            finally:
                self.begun.append(job)
            return list(job)

    async def play() -> list[int]:
        dispatcher = Dispatcher[Job, list[int]]([Slow(places=1)])
        first = asyncio.create_task(dispatcher.do((0,)))
        await asyncio.sleep(10)
        first.cancel()
        result = await dispatcher.do((1,))
        await dispatcher.close()
        return result

    assert virtual_time.run(play()) == [1]


def test_whoever_waits_for_a_running_job_hears_of_the_end() -> None:
    class Slow(Invented):
        async def do(self, job: Job) -> list[int]:
            await asyncio.sleep(1e6)
            return list(job)

    async def play() -> list[list[int] | BaseException]:
        dispatcher = Dispatcher[Job, list[int]]([Slow(places=1)])
        waiting = [asyncio.create_task(dispatcher.do((number,))) for number in range(2)]
        await asyncio.sleep(10)
        await dispatcher.close()
        async with asyncio.timeout(10):
            return await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(each) for each in virtual_time.run(play())] == [asyncio.CancelledError] * 2


@pytest.mark.parametrize("back", [40.0, 80.0])
def test_a_crew_that_is_lost_and_does_not_come_back_is_told_of(back: float) -> None:
    @dataclass
    class Mortal(Invented):
        lives: int = 2

        async def ready(self) -> None:
            self.lives -= 1
            await asyncio.sleep(0 if self.lives else back)

        async def do(self, job: Job) -> list[int]:
            if self.lives:
                raise WorkerLost("its node died")
            return list(job)

    async def play() -> tuple[list[list[int] | BaseException], float]:
        dispatcher = Dispatcher[Job, list[int]]([Mortal(), Mortal()], start_seconds=60)
        loop = asyncio.get_running_loop()
        try:
            first = (await asyncio.gather(dispatcher.do((1,)), return_exceptions=True))[0]
            told = loop.time()
            await asyncio.sleep(1)
            await dispatcher.staffed()
            return [first, await dispatcher.do((2,))], told
        finally:
            await dispatcher.close()

    (first, second), told = virtual_time.run(play())
    assert second == [2], "later calls wait for whoever comes back"
    if back < 60:
        assert first == [1]
    else:
        assert isinstance(first, TrainingError)
        assert "no worker is left, and none has come back within 60 s" in str(first)
        assert told == pytest.approx(60, abs=1)
