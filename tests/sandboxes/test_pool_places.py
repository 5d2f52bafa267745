"""The pool on real back ends: deaths, kills and engines, and that nothing is left."""

import asyncio
import statistics
import time

import pytest
from support.holders import Holder
from support.sandboxes import PLACES, bubblewrap, docker, told

from palaestra.errors import SandboxImageError
from palaestra.sandboxes import reaper
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.pool import Pool
from palaestra.sandboxes.spec import SandboxSpec

POOL = """
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.pool import Pool
from palaestra.sandboxes.spec import SandboxSpec

async def hold():
    backend = open_backend("{name}")
    pool = Pool(backend, SandboxSpec(image="{image}"), size=2)
    await pool.fill()
    taken = await pool.take()
    kept = await taken.snapshot()
    await taken.fork(1)
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(hold())
"""


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def place(request, tmp_path, monkeypatch):
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))
    monkeypatch.setattr(reaper, "_begun", {})
    return request.param


def things():
    """What this test's leases hold: its folder of leases is its own."""
    found = asyncio.run(reaper.survey()).things
    return [thing for thing in found if thing.state != "elsewhere"]


def test_ready_sandboxes_work_once_and_leave_nothing(place):
    async def play():
        backend, spec = place()
        waits = []
        async with backend, Pool(backend, spec, size=3) as pool:
            for _ in range(3):
                await pool.fill()
                begin = time.perf_counter()
                sandbox = await pool.take()
                waits.append(time.perf_counter() - begin)
                assert await told(sandbox, "ls -A; touch used") == ""
                await sandbox.close()
        return statistics.median(waits)

    assert asyncio.run(play()) < 1.0  # 20 ms on a machine that does nothing else: see benchmarks/sandbox_start.py
    assert things() == []


def test_one_that_is_lost_while_it_waits_is_not_handed_out(place):
    async def play():
        backend, spec = place()
        async with backend, Pool(backend, spec, size=2, check=3600.0) as pool:
            await pool.fill()
            (lost, _), (good, _) = pool._ready
            await lost.close()
            async with pool.take() as sandbox:
                assert sandbox is good
                assert await told(sandbox, "echo alive") == "alive\n"

    asyncio.run(play())
    assert things() == []


def test_a_pool_of_a_spec_that_cannot_start_says_why(place):
    async def play():
        backend, _ = place()
        async with backend, Pool(backend, SandboxSpec(image="no-such/image:1"), size=2) as pool:
            with pytest.raises(SandboxImageError, match="no-such"):
                await pool.take()

    asyncio.run(play())
    assert things() == []


def held_by(name, image):
    holder = Holder(POOL.format(name=name, image=image))
    assert holder.id == "ready"
    return holder


@pytest.mark.parametrize("place", [bubblewrap, docker], ids=["bubblewrap", "docker"], indirect=True)
def test_nothing_is_left_of_a_pool_whose_process_was_killed(place):
    name, (_, spec) = place.__name__, place()
    with held_by(name, spec.image) as holder:
        held = things()
        assert {thing.state for thing in held} == {"alive"}
        assert {thing.holder.pid for thing in held} == {holder.process.pid}
        assert {"docker": "container", "bubblewrap": "process"}[name] in {thing.kind for thing in held}
        asyncio.run(reaper.reap())
        staying = {thing.name for thing in held if "-copier-" not in thing.name}  # copiers end by themselves
        assert staying <= {thing.name for thing in things()}, "alive: left alone"
        holder.kill()
        assert asyncio.run(reaper.reap()).kept == {}
        assert things() == []


def test_sixty_four_tasks_on_one_engine_all_get_done(tmp_path, monkeypatch):
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))
    docker()  # skips where it is not there

    async def play():
        async with open_backend("docker") as backend:
            spec, running = SandboxSpec(image="palaestra-base:test"), []

            async def one(number):
                async with await backend.start(spec) as sandbox:
                    running.append(backend.engine.governor.running)
                    return await told(sandbox, f"echo {number} > n; cat n")

            said = await asyncio.gather(*map(one, range(64)))
            assert said == [f"{number}\n" for number in range(64)]
            assert max(running) <= 32
            assert backend.engine.governor.running == backend.engine.governor.waiting == 0

    asyncio.run(play())
    assert things() == []
