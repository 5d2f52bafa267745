"""Places: limits on how many instances there are, and forks within them."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.isolated_envs import Bad, Ledger, spec

from palaestra.envs.isolation.placement import Deadlines, Placement, placed
from palaestra.envs.isolation.queueing import places
from palaestra.envs.places import Places
from palaestra.envs.registry import make, register
from palaestra.errors import DeadlineError, EnvError, WorkerError

KINDS = pytest.mark.parametrize("kind", ["thread", "process"])


def run(work: Coroutine[Any, Any, None]) -> None:
    async def soon() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(soon())


def limited(kind: Any, concurrency: int, **seconds: float) -> Placement:
    return Placement(kind=kind, concurrency=concurrency, deadlines=Deadlines(**seconds))


@KINDS
def test_a_fork_that_never_can_be_is_refused_at_once(kind: str) -> None:
    async def go() -> None:
        async with make(spec(Ledger, placement=limited(kind, 2))) as env:
            await env.reset(seed=1)
            with pytest.raises(EnvError, match="3 places are needed at once and concurrency=2"):
                await env.fork(2)
            [sibling] = await env.fork(1)
            assert await sibling.step("a") == await env.step("a")
            await sibling.close()

    run(go())


@KINDS
def test_two_forks_do_not_wait_for_each_other(kind: str) -> None:
    async def branch(env: Any) -> None:
        await env.reset(seed=1)
        await asyncio.sleep(0)
        for sibling in await env.fork(2):
            await sibling.step("a")
            await sibling.close()
        await env.close()

    async def go() -> None:
        await asyncio.gather(*(branch(make(spec(Ledger, placement=limited(kind, 4)))) for _ in range(2)))

    run(go())


def test_where_all_wait_to_fork_the_later_are_told() -> None:
    async def branch(env: Any) -> None:
        async with env:
            for sibling in await env.fork(2):
                await sibling.close()

    async def go() -> None:
        envs = [make(spec(Ledger, placement=limited("thread", 3))) for _ in range(3)]
        for env in envs:
            await env.reset(seed=1)
        told = await asyncio.gather(*map(branch, envs), return_exceptions=True)
        assert told[0] is None
        assert all("every place is held" in str(error) for error in told[1:])

    run(go())


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=20))
def test_places_are_never_more_and_never_lost(wanted: list[tuple[int, bool]]) -> None:
    async def go() -> None:
        pool, held = Places(4), 0

        async def use(n: int, cancelled: bool) -> None:
            nonlocal held
            if cancelled:
                asyncio.get_running_loop().call_soon(tasks[len(started)].cancel)
            started.append(n)
            await pool.take(n)
            held += n
            assert held <= 4
            try:
                await asyncio.sleep(0)
            finally:
                held -= n
                for _ in range(n):
                    pool.give_back()

        started: list[int] = []
        tasks = [asyncio.create_task(use(*one)) for one in wanted]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.idle

    run(go())


def test_another_number_for_the_same_id_is_refused_while_it_matters() -> None:
    async def go() -> None:
        one = make(spec(Ledger, placement=limited("thread", 1)))
        other = make(spec(Ledger, placement=limited("thread", 8)))
        await one.reset(seed=1)
        with pytest.raises(EnvError, match="runs with concurrency=1 already, and not 8"):
            await other.reset(seed=1)
        await one.close()
        await other.reset(seed=1)
        await other.close()

    run(go())


def test_limits_that_nobody_would_keep_are_refused() -> None:
    for kind, limits in {
        "inline": {"concurrency": 1},
        "thread": {"memory_bytes": 1},
        "remote": {"memory_bytes": 1},
    }.items():
        placement = Placement(kind=kind, **limits)  # type: ignore[arg-type]
        with pytest.raises(EnvError, match=f"{kind!r} cannot keep {next(iter(limits))}; leave it out, or use one of"):
            make("alfworld/Household-v0", placement=placement)
        with pytest.raises(EnvError, match="cannot keep"):
            register("t/Limited-v0", Ledger, placement=placement)
    kept = Placement(kind="process", memory_bytes=10**9, concurrency=2)
    assert placed("thread", kept) == Placement(kind="thread", concurrency=2)
    assert placed("inline", kept) == Placement()


def test_closed_loops_are_forgotten() -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def use() -> None:
        async with make(spec(Ledger, placement=limited("thread", 1))) as env:
            await env.reset(seed=1)

    async def crowd() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(use() for _ in range(3)))

    for _ in range(3):
        run(crowd())
    run(use())
    gc.collect()
    assert [loop() for loop in loops] == [None, None, None]


def test_who_waits_in_a_loop_that_is_closed_does_not_keep_it() -> None:
    loop = asyncio.new_event_loop()
    kept = weakref.ref(loop)
    here = spec(Ledger, placement=limited("thread", 1))

    async def wait() -> None:
        pool = places(here)
        assert pool is not None
        await pool.take()
        waiting = asyncio.ensure_future(pool.take())
        await asyncio.sleep(0)
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]

    loop.run_until_complete(wait())
    loop.close()
    del loop

    async def look() -> None:
        assert places(here) is not None

    run(look())
    gc.collect()
    assert kept() is None


def test_a_wait_for_a_place_says_nothing_of_threads() -> None:
    async def go() -> None:
        one, other = (make(spec(Ledger, placement=limited("thread", 1, queue=0.1))) for _ in range(2))
        async with one:
            await one.reset(seed=1)
            with pytest.raises(DeadlineError) as told:
                await other.reset(seed=1)
        assert "queue took longer than 0.1 s" in str(told.value)
        assert "thread" not in str(told.value)
        with pytest.raises(DeadlineError, match="thread cannot be ended"):
            await make(
                spec(Bad, how="late", when="reset", seconds=1.0, placement=limited("thread", 1, reset=0.1))
            ).reset()

    run(go())


@KINDS
def test_another_event_loop_needs_a_reset(kind: str) -> None:
    env = make(spec(Ledger, placement=limited(kind, 1)))
    first = []

    async def begin() -> None:
        first.append(await env.reset(seed=1))

    async def go_on() -> None:
        with pytest.raises(WorkerError, match="belongs to another event loop; call reset"):
            await env.step("a")
        first.append(await env.reset(seed=1))
        await env.step("a")

    async def begin_again() -> None:
        first.append(await env.reset(seed=1))
        await env.close()

    for work in (begin, go_on, begin_again):
        run(work())
    assert first[0] == first[1] == first[2]
    run(env.close())
