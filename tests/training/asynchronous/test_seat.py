"""A parked episode gives its place to another one, and takes one again when it goes on."""

import asyncio

from support.levers import tiny_model

from palaestra.agents.engines.base import Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.envs.places import Places
from palaestra.training.asynchronous.seat import Seat

REQUEST = Request(prompt=[5, 6, 7], sampling=SamplingParams(max_tokens=4), session="a")


def test_parked_and_resumed() -> None:
    async def go() -> None:
        engine, places = TorchEngine(tiny_model()), Places(1)
        first, second = Seat(engine, places), Seat(engine, places)
        await first.sit()
        before = await first.generate(REQUEST)
        waiting = asyncio.create_task(second.sit())
        await asyncio.sleep(0)
        assert not waiting.done(), "there is one place"
        await first.park()
        await waiting
        assert not engine._table.slots[0].ids, "the engine has forgotten the conversation"
        await engine.update_weights({}, 5)
        resumed = asyncio.create_task(first.generate(REQUEST))
        await asyncio.sleep(0)
        assert not resumed.done()
        second.leave()
        after = await resumed
        assert (before.weight_version, after.weight_version) == (0, 5)
        assert before.ids == after.ids
        first.leave()
        first.leave()
        assert places.idle
        await engine.close()

    asyncio.run(go())


def test_who_comes_back_goes_before_those_who_never_sat() -> None:
    async def go() -> None:
        engine, places = TorchEngine(tiny_model()), Places(1)
        parked, playing, *others = (Seat(engine, places) for _ in range(5))
        await parked.sit()
        waiting = [asyncio.create_task(seat.sit()) for seat in (playing, *others)]
        await asyncio.sleep(0)
        await parked.park()
        await waiting[0]
        resumed = asyncio.create_task(parked.generate(REQUEST))
        await asyncio.sleep(0)
        playing.leave()
        await resumed
        assert not any(task.done() for task in waiting[1:])
        parked.leave()
        for task, seat in zip(waiting[1:], others, strict=True):
            await task
            seat.leave()
        assert places.idle
        await engine.close()

    asyncio.run(go())
