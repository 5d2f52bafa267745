"""An engine that dies is started again; who waits for a completion never knows."""

import asyncio

import pytest
from support.levers import tiny_model

from palaestra.agents.engines.base import Completion, Engine, Request, SamplingParams
from palaestra.agents.engines.scripted import ScriptedEngine
from palaestra.agents.engines.supervised import SupervisedEngine
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.errors import EngineError

REQUESTS = [Request(prompt=[5, 6, seed + 1], sampling=SamplingParams(max_tokens=20, seed=seed)) for seed in range(4)]


def test_requests_outlive_their_engine() -> None:
    model = tiny_model()
    started: list[TorchEngine] = []

    async def start(version: int) -> Engine:
        started.append(TorchEngine(model))
        await started[-1].update_weights({}, version)
        return started[-1]

    async def go(*, killed: bool) -> tuple[list[Completion], SupervisedEngine]:
        engine = SupervisedEngine(start)
        await engine.open(3)
        tasks = [asyncio.create_task(engine.generate(request)) for request in REQUESTS]
        if killed:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await started[-1].close()
        completions = await asyncio.gather(*tasks)
        await engine.close()
        return completions, engine

    expected, _ = asyncio.run(go(killed=False))
    completions, engine = asyncio.run(go(killed=True))
    assert engine.restarted == 1
    assert len(started) == 3
    assert [each.ids for each in completions] == [each.ids for each in expected]
    assert {each.weight_version for each in completions} == {3}


def test_an_engine_that_dies_again_and_again_is_an_error() -> None:
    class Broken:
        weight_version, context_length = 0, 64

        async def generate(self, request: Request) -> Completion:
            raise EngineError("the GPU is on fire")

        async def update_weights(self, weights: object, version: int) -> None:
            pass

        async def release(self, session: str) -> None:
            pass

        async def close(self) -> None:
            pass

    async def start(version: int) -> Engine:
        return Broken()

    async def go() -> int:
        engine = SupervisedEngine(start, restarts=2)
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(REQUESTS[0])
        await engine.open(0)
        with pytest.raises(EngineError, match="on fire"):
            await engine.generate(REQUESTS[0])
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(REQUESTS[0])
        return engine.restarted

    assert asyncio.run(go()) == 2


def test_a_restart_outlives_the_request_that_found_the_engine_broken() -> None:
    """And `close` closes what it makes."""
    started: list[ScriptedEngine] = []

    async def go() -> None:
        ready = asyncio.Event()

        async def start(version: int) -> Engine:
            if started:
                await ready.wait()
            started.append(ScriptedEngine([[7, 2]], cycle=True))
            return started[-1]

        engine = SupervisedEngine(start)
        await engine.open(0)
        await started[0].close()
        first, second = (asyncio.create_task(engine.generate(request)) for request in REQUESTS[:2])
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        ready.set()
        assert (await second).ids == [7, 2]
        assert (len(started), engine.restarted, first.cancelled()) == (2, 1, True)
        ready.clear()
        await started[1].close()
        third = asyncio.create_task(engine.generate(REQUESTS[2]))
        await asyncio.sleep(0.01)
        third.cancel()
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0.01)
        ready.set()
        await closing
        with pytest.raises(EngineError, match="closed"):
            await started[2].generate(REQUESTS[2])

    asyncio.run(go())


def test_a_hand_over_waits_for_a_restart_that_has_the_earlier_weights() -> None:
    started: list[ScriptedEngine] = []

    async def go() -> None:
        ready = asyncio.Event()

        async def start(version: int) -> Engine:
            if started:
                await ready.wait()
            started.append(ScriptedEngine([[7, 2]], cycle=True))
            await started[-1].update_weights({}, version)
            return started[-1]

        engine = SupervisedEngine(start)
        await engine.open(0)
        await started[0].close()
        asking = asyncio.create_task(engine.generate(REQUESTS[0]))
        await asyncio.sleep(0.01)
        handing = asyncio.create_task(engine.update_weights({}, 1))
        await asyncio.sleep(0.01)
        ready.set()
        await asyncio.gather(asking, handing)
        assert started[1].weight_version == 1
        await engine.close()

    asyncio.run(go())
