"""Questions of chain_sum and spell_backward asked and answered per second through the environment, beside
reasoning-gym called in this process, where a hostile answer could run code or never end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from palaestra import make
from palaestra.envs.isolation.proc import children, descendants, resident_bytes
from palaestra.envs.tasks import load_suite

GENERATORS = ("chain_sum", "spell_backward")
_EACH = 100


def measure(seconds: float) -> dict[str, float | str]:
    """See the other files of this folder."""
    asyncio.run(_play(0))  # imports, and a judge
    _stock(0)
    ours, stock, done = 0.0, 0.0, 0
    end = time.monotonic() + seconds
    while not done or (time.monotonic() < end and done < 9000):
        ours += _timed(lambda first=done: asyncio.run(_play(first)))
        stock += _timed(lambda first=done: _stock(first))
        done += _EACH
    steps = done * len(GENERATORS)
    judges = [resident_bytes(pid) for pid in descendants(os.getpid(), children())]
    return {
        "steps_per_second": steps / ours,
        "stock_steps_per_second": steps / stock,
        "ratio": stock / ours,
        "memory_bytes": 0.0,
        "judges_bytes": float(sum(judges)),
    }


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def _play(first: int) -> None:
    async with make("reasoning/Gym-v0") as env:
        for name in GENERATORS:
            for task in load_suite(f"reasoning/{name}:train")[first : first + _EACH]:
                await env.reset(seed=task.seed, task=task)
                await env.step("12")


@cache
def _questions(generator: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(generator, seed=0, size=10_000)


def _stock(first: int) -> None:
    for name in GENERATORS:
        questions = _questions(name)
        for place in range(first, first + _EACH):
            questions.score_answer(answer="12", entry=questions[place])
