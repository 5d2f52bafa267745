"""Actors that hang, and calls that nobody waits for any more, without a cluster."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install 'palaestra[ray]'")

import ray
from ray.exceptions import RayActorError

from palaestra.agents.engines.base import Completion, Request, SamplingParams
from palaestra.agents.episode import RolloutLimits
from palaestra.agents.scripted import RandomAgent
from palaestra.config import AgentConfig, PlaceConfig
from palaestra.distributed import cluster
from palaestra.distributed.crew import ActorWorker, Job
from palaestra.distributed.engine import RemoteEngine
from palaestra.distributed.policy import Policy, Refs
from palaestra.distributed.units import Unit
from palaestra.distributed.worker import Orders

REQUEST = Request(prompt=[1], session="s", sampling=SamplingParams(max_tokens=1))
DONE = Completion(ids=[7], logprobs=[0.0], entropies=[0.0])


class Method:
    """Called as an actor's is."""

    def __init__(self, work: Any) -> None:
        self.remote = work


class Host:
    """An actor that may hang."""

    def __init__(self, *, hangs: bool = False, slow: bool = False) -> None:
        self.hangs, self.slow = hangs, slow
        self.killed = asyncio.Event()
        self.orders: list[Orders] = []
        self.ready = Method(lambda: self._answer(None))
        self.generate = Method(lambda *_: asyncio.ensure_future(self._answer(DONE, slow=self.slow)))
        self.play = Method(self._play)
        self.update = Method(lambda policy: None)

    async def _answer(self, value: Any, slow: bool = False) -> Any:
        if self.hangs or slow:
            await self.killed.wait()
            raise RayActorError
        return value

    async def _play(self, episodes: Any, orders: Orders) -> list[bytes]:
        self.orders.append(orders)
        return []


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    cancelled: list[Any] = []
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart=True: actor.killed.set())
    monkeypatch.setattr(ray, "cancel", cancelled.append)
    return cancelled


def test_an_engine_that_hangs_is_killed_and_another_answers() -> None:
    async def ask() -> tuple[Completion, bool]:
        hung = Host(hangs=True)
        engine = RemoteEngine([hung, Host()], 0, "w", 0.1)
        async with asyncio.timeout(10):
            completion = await engine.generate(REQUEST)
        await engine.close()
        return completion, hung.killed.is_set()

    assert asyncio.run(ask()) == (DONE, True)


def test_an_engine_that_is_slow_lives() -> None:
    async def ask() -> bool:
        host = Host(slow=True)
        engine = RemoteEngine([host], 0, "w", 0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await engine.generate(REQUEST)
        await engine.close()
        return host.killed.is_set()

    assert not asyncio.run(ask())


def test_a_request_ends_with_whoever_waits_for_it(ends: list[Any]) -> None:
    async def leave() -> None:
        engine = RemoteEngine([Host(slow=True)], 0, "w", 10.0)
        asking = asyncio.create_task(engine.generate(REQUEST))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        await engine.close()

    asyncio.run(leave())
    assert len(ends) == 1


def test_a_job_that_is_given_out_again_has_the_newest_weights() -> None:
    def policy(serial: int) -> Policy:
        return Policy("p", AgentConfig(), serial, 10 + serial, Refs("skeleton", f"packing-{serial}"))

    async def play(*whos: Any) -> list[Any]:
        host = Host()
        worker = ActorWorker(host, places=1, silence_seconds=10.0)
        worker.update(policy(3))
        for who in whos:
            await worker.do(Job(Unit((), ()), Orders(who, RolloutLimits())))
        worker.kill()
        return [orders.who for orders in host.orders]

    ready = RandomAgent()
    old, new, other = asyncio.run(play(policy(1), policy(4), ready))
    assert (old, new) == (policy(3), policy(4))
    assert other is ready


def test_room_is_what_is_free_beside_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": True, "Resources": {"CPU": 1.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 6.0})
    place = PlaceConfig(cpus=2)
    assert cluster.room(place) == 4
    assert cluster.free_room(place) == 3
    assert cluster.free_room(place, [PlaceConfig(cpus=1)] * 2) == 2
    assert cluster.free_room(PlaceConfig(cpus=0)) == 2
