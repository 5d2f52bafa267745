"""The governor on simulated engines: everything gets done, nearly as fast as can be, and none is drowned."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.virtual_time import run

from palaestra.errors import SandboxDaemonError, SandboxImageError
from palaestra.sandboxes.governor import Governor, Limit


@dataclass
class Daemon:
    """An engine whose cores are shared by all that it is asked for, and that fails when it is asked for too much."""

    cores: int
    noise: float = 0.0
    collapse: int = 10**9
    seed: int = 0
    running: int = 0
    busiest: int = 0
    failures: int = 0
    seen: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.chance = random.Random(self.seed)

    async def work(self, seconds):
        self.running += 1
        self.busiest = max(self.busiest, self.running)
        self.seen.append(self.running)
        seconds *= 1.0 + self.noise * self.chance.random()
        try:
            for _ in range(4):
                await asyncio.sleep(seconds / 4 * max(1.0, self.running / self.cores))
                if self.running > self.collapse:
                    self.failures += 1
                    raise SandboxDaemonError("too much")
        finally:
            self.running -= 1


def governor(**settings):
    return Governor(Limit(**settings), clock=lambda: asyncio.get_running_loop().time())


async def all_done(gate, daemon, count, kinds, tries=50):
    """So many operations of each kind, begun all at once, each tried again when it fails; seconds that they took."""

    async def one(kind, seconds):
        for _ in range(tries):
            try:
                async with gate.turn(kind):
                    return await daemon.work(seconds)
            except SandboxDaemonError:
                continue
        raise AssertionError("it never worked")

    begin = asyncio.get_running_loop().time()
    await asyncio.gather(*(one(kind, seconds) for _ in range(count) for kind, seconds in kinds.items()))
    return asyncio.get_running_loop().time() - begin


@settings(max_examples=25, deadline=None)
@given(
    cores=st.integers(1, 16),
    noise=st.floats(0.0, 0.5),
    begin=st.floats(1.0, 64.0),
    seed=st.integers(0, 99),
    start=st.floats(0.01, 3.0),
    remove=st.floats(0.01, 3.0),
)
def test_everything_is_done_nearly_as_fast_as_the_cores_can(cores, noise, begin, seed, start, remove):
    daemon, gate = Daemon(cores, noise, seed=seed), governor(value=begin)
    took = run(all_done(gate, daemon, 200, {"start": start, "remove": remove}))
    ideal = 200 * (start + remove) / cores
    assert took < 1.5 * (1.0 + noise) * ideal + 30 * max(start, remove)
    assert gate.running == gate.waiting == 0
    assert 1.0 <= gate.limit.value <= 64.0


@settings(max_examples=15, deadline=None)
@given(cores=st.integers(1, 8), noise=st.floats(0.0, 0.5), begin=st.floats(1.0, 64.0), seed=st.integers(0, 99))
def test_a_crowd_never_passes_for_the_normal_state(cores, noise, begin, seed):
    daemon, gate = Daemon(cores, noise, seed=seed), governor(value=begin)
    run(all_done(gate, daemon, 1000, {"start": 0.3}))
    late = daemon.seen[500:]
    assert sum(late) / len(late) < 5 * cores + 2
    assert max(late) < 10 * cores + 4


@settings(max_examples=15, deadline=None)
@given(cores=st.integers(1, 4), room=st.integers(2, 8), begin=st.floats(1.0, 64.0), seed=st.integers(0, 99))
def test_an_engine_that_fails_when_crowded_is_not_crowded_for_long(cores, room, begin, seed):
    daemon = Daemon(cores, 0.2, collapse=cores * room, seed=seed)
    run(all_done(governor(value=begin), daemon, 500, {"start": 0.3}))
    assert daemon.failures < 250


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 1e6), st.booleans(), st.booleans())),
    st.integers(1, 100),
    st.floats(0, 200),
)
def test_the_number_stays_between_one_and_the_most(operations, most, begin):
    limit, now = Limit(begin, most), 0.0
    for good, seconds, crowded, alone in operations:
        began, now = now, now + seconds
        if good:
            limit.done("x", began, now, alone=alone, crowded=crowded)
        else:
            limit.failed(began, now)
        assert 1 <= limit.allowed <= limit.value <= most


def test_an_engine_that_gets_slower_is_asked_for_less():
    async def play():
        daemon, gate = Daemon(8), governor()
        await all_done(gate, daemon, 500, {"start": 0.3})
        daemon.cores, daemon.seen = 1, []
        await all_done(gate, daemon, 500, {"start": 0.3})
        return daemon.seen

    seen = run(play())
    assert sum(seen[-200:]) / 200 < 8


def test_nothing_is_learnt_from_a_quiet_time():
    async def play():
        daemon, gate = Daemon(2), governor(value=4.0)
        for _ in range(30):
            await all_done(gate, daemon, 1, {"start": 0.3})
        return gate.limit.value

    assert run(play()) == 4.0


def test_operations_of_no_kind_have_turns_and_teach_nothing():
    async def play():
        gate = governor(value=2.0, most=2)
        before = vars(gate.limit).copy()

        async def one(seconds):
            async with gate.turn():
                assert gate.running <= 2
                await asyncio.sleep(seconds)

        await asyncio.gather(*(one(0.01 if number % 2 else 60.0) for number in range(50)))
        return before == vars(gate.limit)

    assert run(play())


@pytest.mark.parametrize("started", [False, True])
def test_operations_of_no_kind_do_not_go_one_at_a_time_until_somebody_measures(started):
    async def play():
        gate, most = governor(value=8.0), 0

        async def one(kind):
            nonlocal most
            async with gate.turn(kind):
                assert gate.limit.allowed > 1 or gate.running == 1 or not gate._measured  # the look is undisturbed
                most = max(most, gate.running)
                await asyncio.sleep(1.0)

        begin = asyncio.get_running_loop().time()
        await asyncio.gather(*(one("") for _ in range(20)), *(one("start") for _ in range(started)))
        return most, asyncio.get_running_loop().time() - begin

    most, took = run(play())
    assert most == 8
    assert took < 5.0


def test_first_come_first_served():
    async def play():
        gate, order = governor(value=1.0, most=1), []

        async def one(number):
            async with gate.turn("x"):
                order.append(number)
                await asyncio.sleep(1.0)

        await asyncio.gather(*map(one, range(20)))
        return order

    assert run(play()) == list(range(20))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40), st.integers(1, 4))
def test_whoever_is_cancelled_takes_nobodys_turn(patience, most):
    async def play():
        gate = governor(value=float(most), most=most)

        async def one(seconds):
            try:
                async with asyncio.timeout(seconds), gate.turn("x"):
                    assert gate.running <= most
                    await asyncio.sleep(1.0)
            except TimeoutError:
                pass

        await asyncio.gather(*map(one, patience))
        assert gate.running == gate.waiting == 0
        async with asyncio.timeout(1.0), gate.turn("x"):
            pass

    run(play())


def test_cancelled_in_the_moment_of_its_turn():
    async def play():
        gate = governor(value=1.0, most=1)
        inside, leave = asyncio.Event(), asyncio.Event()

        async def holder():
            async with gate.turn("x"):
                inside.set()
                await leave.wait()

        async def waiter():
            async with gate.turn("x"):
                pass

        first = asyncio.create_task(holder())
        await inside.wait()
        second, third = asyncio.create_task(waiter()), asyncio.create_task(waiter())
        await asyncio.sleep(0)
        leave.set()
        await first  # the second has its turn, and does not know it yet
        second.cancel()
        await asyncio.wait_for(third, 1.0)
        assert gate.running == gate.waiting == 0

    run(play())


@pytest.mark.parametrize(
    ("error", "less"), [(SandboxDaemonError, True), (TimeoutError, True), (SandboxImageError, False)]
)
def test_only_what_the_engine_does_is_held_against_it(error, less):
    async def play():
        gate = governor(value=8.0)
        with pytest.raises(error):
            async with gate.turn("x"):
                raise error("no")
        return gate.limit.value

    assert (run(play()) < 8.0) == less
