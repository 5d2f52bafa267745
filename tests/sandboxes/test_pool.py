"""The pool on a back end whose sandboxes do what the test wants; time is virtual."""

import asyncio
import gc
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.virtual_time import run

from palaestra.errors import ConfigError, SandboxDaemonError, SandboxError, SandboxImageError
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.pool import Pool
from palaestra.sandboxes.scripted import ScriptedBackend, reply
from palaestra.sandboxes.spec import Limits, SandboxSpec


class Made(Sandbox):
    """A sandbox that only lives and dies."""

    exec = session = read_file = write_file = upload = download = snapshot = fork = None

    def __init__(self, backend):
        self.backend, self.dead, self.hangs, self.renewals = backend, False, False, 0
        backend.open.add(self)

    async def renew(self):
        await asyncio.sleep(3600.0 if self.hangs else 0.001)
        if self.dead:
            raise SandboxError("dead")
        self.renewals += 1

    async def close(self):
        await asyncio.sleep(0.2)
        self.backend.open.discard(self)


Made.__abstractmethods__ = frozenset()


class Starter(Backend):
    """Starts them in `seconds`, or fails with the next of `errors` (`None`: not)."""

    name = "test"

    def __init__(self, seconds=0.3, errors=()):
        self.seconds, self.errors = seconds, iter(errors)
        self.open, self.running, self.busiest, self.begun, self.times = set(), 0, 0, 0, []

    async def start(self, spec):
        self.begun += 1
        self.running += 1
        self.busiest = max(self.busiest, self.running)
        self.times.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.seconds)
            if error := next(self.errors, None):
                raise error
            return Made(self)
        finally:
            self.running -= 1

    async def close(self):
        assert not self.open


def forever(error):
    while True:
        yield error


def now():
    return asyncio.get_running_loop().time()


def played(play):
    """Run a test in virtual time; nothing may be left of it, not even an error that nobody saw."""

    def test():
        unseen = []

        async def watched():
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["message"]))
            await play()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(watched())
        gc.collect()
        assert not unseen

    test.__name__, test.__doc__ = play.__name__, play.__doc__
    return test


@played
async def test_a_ready_one_comes_at_once_and_is_replaced():
    backend = Starter()
    async with backend, Pool(backend, SandboxSpec(), size=2) as pool:
        await pool.fill()
        assert (pool.ready, pool.starting) == (2, 0)
        begin = now()
        async with pool.take() as sandbox:
            assert now() - begin < 0.01
            assert sandbox.renewals == 1
            await asyncio.sleep(1.0)
            assert pool.ready == 2
        assert sandbox not in backend.open
        assert len(backend.open) == 2


@played
async def test_taken_plainly_it_is_the_takers():
    backend = Starter()
    async with Pool(backend, SandboxSpec(), size=1) as pool:
        sandbox = await pool.take()
    assert backend.open == {sandbox}


@played
async def test_each_is_handed_out_once():
    backend = Starter()
    async with Pool(backend, SandboxSpec(), size=4) as pool:
        taken = await asyncio.gather(*(pool._take() for _ in range(50)))
        assert len(set(taken)) == 50


@played
async def test_starts_are_few_at_once_and_no_more_than_wanted():
    backend = Starter()
    async with Pool(backend, SandboxSpec(), size=3, at_once=2) as pool:
        await pool.fill()
        assert backend.begun == 3
        await asyncio.gather(*(pool._take() for _ in range(20)))
        await asyncio.sleep(10.0)
        assert backend.busiest == 2
        assert backend.begun == 23


@played
async def test_the_dead_and_the_hanging_are_never_handed_out():
    backend = Starter()
    async with Pool(backend, SandboxSpec(), size=3, check=1e6) as pool:
        await pool.fill()
        dead, hanging, good = [each for each, _ in pool._ready]
        dead.dead = hanging.hangs = True
        assert await pool.take() is good
        await asyncio.sleep(1.0)
        assert {dead, hanging}.isdisjoint(backend.open)
        assert pool.ready == 3


@played
async def test_those_that_die_while_they_wait_are_replaced():
    backend = Starter()
    async with Pool(backend, SandboxSpec(), size=3) as pool:
        await pool.fill()
        first = [each for each, _ in pool._ready]
        first[0].dead = first[1].hangs = True
        await asyncio.sleep(60.0)
        assert pool.ready == 3
        assert backend.begun == 5
        assert first[2].renewals > 3


@played
async def test_those_that_wait_outlive_their_lifetime_and_are_replaced_when_old():
    backend = Starter()
    async with Pool(backend, SandboxSpec(limits=Limits(lifetime=3.0)), size=1) as pool:
        await pool.fill()
        ((first, _),) = pool._ready
        await asyncio.sleep(30.0)
        assert first.renewals >= 29
        await asyncio.sleep(3600.0)
        assert first not in backend.open
        assert pool.ready == 1


@played
async def test_a_start_that_fails_once_is_tried_again_unnoticed():
    backend = Starter(errors=[SandboxDaemonError("busy"), SandboxDaemonError("busy")])
    async with Pool(backend, SandboxSpec(), size=1) as pool:
        await pool.take()


@played
async def test_an_engine_that_starts_none_is_told_to_all_who_wait():
    backend = Starter(errors=forever(SandboxDaemonError("no engine")))
    async with Pool(backend, SandboxSpec(), size=1) as pool:
        said = await asyncio.gather(*(pool._take() for _ in range(5)), pool.fill(), return_exceptions=True)
        assert {type(each) for each in said} == {SandboxDaemonError}
        assert {str(each) for each in said} == {"no engine"}
        assert len(set(map(id, said))) == 6
        assert all(isinstance(each.__cause__, SandboxDaemonError) for each in said)


@played
async def test_what_trying_again_cannot_mend_is_told_at_once():
    for error in (SandboxImageError("no image"), ConfigError("no"), ZeroDivisionError("bug")):
        backend = Starter(errors=[error])
        async with Pool(backend, SandboxSpec(), size=1, at_once=1) as pool:
            with pytest.raises(type(error) if type(error) is not ZeroDivisionError else SandboxError, match=str(error)):
                await pool.take()
            assert backend.begun == 1


@played
async def test_failing_starts_become_rare_and_end_where_nobody_waits():
    backend = Starter(seconds=0.0, errors=forever(SandboxDaemonError("no engine")))
    async with Pool(backend, SandboxSpec(), size=8, at_once=1) as pool:
        await asyncio.sleep(3600.0)
        assert backend.begun == 3
        begin, tries = now(), backend.begun
        while now() - begin < 600.0:
            with pytest.raises(SandboxDaemonError):
                await pool.take()
        assert backend.begun - tries < 50


@played
async def test_it_recovers_when_the_engine_does():
    backend = Starter(errors=[SandboxDaemonError("no engine")] * 20)
    async with Pool(backend, SandboxSpec(), size=4) as pool:
        for _ in range(100):
            try:
                await pool.take()
                break
            except SandboxDaemonError:
                continue
        await asyncio.sleep(10.0)
        assert pool.ready == 4


@played
async def test_too_many_who_wait_are_sent_away():
    backend = Starter()
    async with Pool(backend, SandboxSpec(), size=1, queue=3) as pool:
        said = await asyncio.gather(*(pool._take() for _ in range(5)), return_exceptions=True)
        refused = [each for each in said if isinstance(each, SandboxError)]
        assert len(refused) == 2
        assert "3 wait for a sandbox of this pool already; take fewer at once" in str(refused[0])


@played
async def test_nobody_waits_for_ever():
    backend = Starter(seconds=1e6)
    async with Pool(backend, SandboxSpec(), size=1, patience=5.0) as pool:
        with pytest.raises(SandboxError, match="no sandbox within 5 s; 2 are being started"):
            await pool.take()
        assert pool.waiting == 0
    backend = Starter(errors=forever(SandboxDaemonError("no engine")))
    async with Pool(backend, SandboxSpec(), size=1, patience=0.7) as pool:
        with pytest.raises(SandboxError, match="the last start failed: no engine"):
            await pool.take()


@played
async def test_closing_leaves_nothing_whatever_is_going_on():
    backend = Starter()
    pool = Pool(backend, SandboxSpec(), size=4)
    takers = [asyncio.create_task(pool._take()) for _ in range(9)]
    await asyncio.sleep(0.4)
    await asyncio.gather(pool.close(), pool.close())
    said = await asyncio.gather(*takers, return_exceptions=True)
    given = [each for each in said if isinstance(each, Sandbox)]
    assert backend.open == set(given)
    assert {str(each) for each in said if isinstance(each, Exception)} == {"the pool is closed"}
    for calling in (pool.take, pool.fill):
        with pytest.raises(SandboxError, match="the pool is closed"):
            await calling()


@played
async def test_closing_does_not_touch_what_is_taken_while_it_is_looked_at():
    backend = Starter()
    pool = Pool(backend, SandboxSpec(), size=1, check=1.0)
    await pool.fill()
    await asyncio.sleep(1.0005)  # in the middle of a look
    sandbox = await pool.take()
    await pool.close()
    assert sandbox in backend.open


@pytest.mark.parametrize("numbers", [{"size": 0}, {"at_once": 0}, {"patience": 0.0}, {"check": -1.0}, {"queue": -1}])
def test_numbers_that_make_no_sense(numbers):
    with pytest.raises(ConfigError):
        Pool(Starter(), SandboxSpec(), **{"size": 1, **numbers})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 5), at_once=st.integers(1, 4), takers=st.integers(1, 30))
def test_whatever_happens_nothing_is_lost_or_left(seed, size, at_once, takers):
    """Deaths, failing starts and takers that give up, at random."""
    chance = random.Random(seed)

    async def play():
        errors = (SandboxDaemonError("busy") if chance.random() < 0.2 else None for _ in iter(int, 1))
        backend, held = Starter(errors=errors), []

        async def one():
            await asyncio.sleep(chance.random() * 5)
            try:
                async with asyncio.timeout(chance.random() * 3):
                    async with pool.take() as sandbox:
                        assert sandbox not in held, "handed out twice"
                        held.append(sandbox)
                        await asyncio.sleep(chance.random())
            except (TimeoutError, SandboxDaemonError):
                pass

        async def reaper():
            while True:
                await asyncio.sleep(chance.random())
                for each, _ in list(pool._ready)[:1]:
                    each.dead = True

        async with backend, Pool(backend, SandboxSpec(), size, at_once=at_once) as pool:
            death = asyncio.create_task(reaper())
            await asyncio.gather(*(one() for _ in range(takers)))
            death.cancel()
            assert pool.waiting == 0
        assert not backend.open
        assert backend.busiest <= at_once

    run(play())


def test_what_is_being_started_is_told_once_to_stop_and_may_clean_up():
    class Careful(Starter):
        tidied = 0

        async def start(self, spec):
            try:
                return await super().start(spec)
            except asyncio.CancelledError:
                await asyncio.sleep(1.0)  # a second cancellation would cut this short
                self.tidied += 1
                raise

    async def play():
        backend = Careful(seconds=60.0)
        pool = Pool(backend, SandboxSpec(), 3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await pool.fill()
        first = asyncio.create_task(pool.close())
        await asyncio.sleep(0.2)
        first.cancel()
        await asyncio.wait([first])
        await pool.close()
        assert (backend.tidied, pool.starting) == (3, 0)

    run(play())


def test_a_pool_of_scripted_sandboxes_takes_no_replies():
    async def play():
        backend = ScriptedBackend([reply("pwd", "/work")])
        async with backend, Pool(backend, SandboxSpec(), 2) as pool, pool.take() as sandbox:
            session = await sandbox.session()
            assert (await session.run("pwd")).stdout.text == "/work"
            with pytest.raises(SandboxError, match="no reply is written down"):
                await session.run("true")

    run(play())


def test_sandboxes_that_start_and_never_answer_are_told_of_at_once():
    class Stillborn(Starter):
        async def start(self, spec):
            made = await super().start(spec)
            made.dead = True
            return made

    async def play():
        async with Stillborn() as backend, Pool(backend, SandboxSpec(), 2) as pool:
            began = asyncio.get_running_loop().time()
            with pytest.raises(SandboxError, match="start and then do not answer: dead"):
                await pool.take()
            assert asyncio.get_running_loop().time() - began < 10.0

    run(play())
