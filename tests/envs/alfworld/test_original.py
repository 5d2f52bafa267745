import asyncio
import sys
import threading

import pytest
from support.absent import Without

from palaestra.envs.alfworld.original import OriginalEnv
from palaestra.envs.registry import spec
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError, MissingExtraError


async def begin(task: Task | None = None) -> None:
    await OriginalEnv().reset(seed=1, task=task)


def test_without_alfworld_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [Without(finder, {"alfworld"}) for finder in sys.meta_path])
    monkeypatch.delitem(sys.modules, "alfworld", raising=False)
    with pytest.raises(MissingExtraError, match=r"palaestra\[alfworld\]"):
        asyncio.run(begin())


def test_it_refuses_to_run_in_a_thread() -> None:
    raised: list[Exception] = []

    def play() -> None:
        try:
            asyncio.run(begin())
        except EnvError as error:
            raised.append(error)

    thread = threading.Thread(target=play)
    thread.start()
    thread.join()
    assert "place it in a process" in str(raised)


def test_a_task_that_is_none_is_told_first() -> None:
    with pytest.raises(DataError, match="household game"):
        asyncio.run(begin(Task(env="alfworld/Original-v0", name="x", params={"game": {"receptacles": 3}})))


def test_before_reset_there_is_no_game() -> None:
    async def go() -> None:
        env = OriginalEnv()
        with pytest.raises(EnvError, match="call reset"):
            await env.step("look")
        with pytest.raises(EnvError, match="call reset"):
            await env.oracle()
        await env.close()
        await env.close()

    asyncio.run(go())


def test_it_is_registered_out_of_the_way() -> None:
    placement = spec("alfworld/Original-v0").placement
    assert placement.kind in ("process", "interpreter")
    assert placement.requirements == ("alfworld==0.4.2",)
