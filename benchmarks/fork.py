"""Fork to first step against a deep copy: an environment that holds 200 MB, and a TextWorld game.

The time of a fork goes from `await env.fork(1)` to the end of the sibling's first step, the worker process being
copied by `os.fork`. The baselines are what a user would do instead, in the same run, taking turns: `copy.deepcopy` of
the same objects, and TextWorld's own `env.copy()` with the copy's first step. Without TextWorld its part is left out.
The ratio is the smaller one; the bar of milliseconds is for the 200 MB.

    python benchmarks/fork.py [--megabytes 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import gc
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from _harness import conclude

from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.registry import EnvSpec, make

BAR, MILLISECONDS_BAR = 10.0, 10.0
OBJECT_BYTES = 540
"""About what one entry of the heap takes."""


def heap(megabytes: int) -> dict[int, dict[str, Any]]:
    """Small objects that point to each other, `megabytes` of them."""
    count = megabytes * 10**6 // OBJECT_BYTES
    return {i: {"name": f"object {i}", "at": [i, i + 1]} for i in range(count)}


class Heap(Env[str, str]):
    """Holds a big world, of which a step changes little."""

    def __init__(self, megabytes: int) -> None:
        self.world = heap(megabytes)

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        self.turn = 0
        return Reset("begin", {})

    async def step(self, action: str) -> Step[str]:
        self.turn += 1
        for i in range(10):
            self.world[(self.turn * 7919 + i * 104729) % len(self.world)]["at"].append(self.turn)
        return Step(f"{self.turn}", 0.0, False, False, {})


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds."""

    fork_ms: float
    baseline_ms: float
    ratio: float
    """Of the baseline's time to the fork's in the same round."""


async def seconds_of(work: Awaitable[Any]) -> float:
    gc.collect()
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def fork_and_step(env: Env[Any, Any], action: str, made: list[Env[Any, Any]]) -> None:
    made += await env.fork(1)
    await made[-1].step(action)


async def compared(env: Env[Any, Any], action: str, baseline: Callable[[], Awaitable[None]], rounds: int) -> Comparison:
    """Both in turns; the first round does not count."""
    forks, copies = [], []
    for _ in range(rounds + 1):
        made: list[Env[Any, Any]] = []
        forks.append(1e3 * await seconds_of(fork_and_step(env, action, made)))
        await made[0].close()
        copies.append(1e3 * await seconds_of(baseline()))
    ratio = statistics.median(copied / forked for copied, forked in list(zip(copies, forks, strict=True))[1:])
    return Comparison(statistics.median(forks[1:]), statistics.median(copies[1:]), ratio)


def in_process(maker: str, **kwargs: Any) -> EnvSpec:
    return EnvSpec(
        id=f"benchmark/{maker}-v0",
        entry_point=f"{__name__}:{maker}",
        kwargs=kwargs,
        placement=Placement(kind="process"),
    )


async def of_heap(megabytes: int, rounds: int) -> Comparison:
    """A worker with a heap of so many MB, against `copy.deepcopy` of the same objects here."""
    async with make(in_process("Heap", megabytes=megabytes)) as env:
        await env.reset(seed=0)
        world = heap(megabytes)

        async def deepcopy() -> None:
            copy.deepcopy(world)

        return await compared(env, "go", deepcopy, rounds)


class Game(Env[str, str]):
    """A TextWorld game, as the package plays it."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        import textworld

        wanted = textworld.EnvInfos(admissible_commands=True, won=True, max_score=True)
        self.game = textworld.start(self.path, wanted)
        return Reset(self.game.reset().feedback, {})

    async def step(self, action: str) -> Step[str]:
        state, score, done = self.game.step(action)
        return Step(state.feedback, float(score), bool(done), False, {})


def generated(folder: str) -> str:
    """The file of a game of TextWorld's own: a meal to cook, in six rooms."""
    import textworld
    from textworld.challenges import CHALLENGES

    options = textworld.GameOptions()
    options.seeds, options.path = 7, f"{folder}/game.z8"
    settings = {"recipe": 3, "take": 3, "go": 6, "open": True, "cook": True, "cut": True, "drop": False}
    game = CHALLENGES["tw-cooking"][1]({**settings, "recipe_seed": 0, "split": None, "seed": 1}, options)
    return str(textworld.generator.compile_game(game, options))


async def of_textworld(rounds: int) -> Comparison:
    """A worker that plays a generated game, against the package's `env.copy()`."""
    with tempfile.TemporaryDirectory() as folder:
        here = Game(generated(folder))
        async with make(in_process("Game", path=here.path)) as env:
            for each in (env, here):
                await each.reset()
                await each.step("look")

            async def its_own() -> None:
                here.game.copy().step("look")

            return await compared(env, "look", its_own, rounds)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = asyncio.run(of_heap(args.megabytes, args.rounds))
    print(f"{args.megabytes} MB: {found}", flush=True)
    figures: dict[str, Any] = {
        "fork_ms": found.fork_ms,
        "fork_ms_bar": MILLISECONDS_BAR,
        "deepcopy_ms": found.baseline_ms,
        "deepcopy_ratio": found.ratio,
    }
    ratio = found.ratio
    if importlib.util.find_spec("textworld"):
        game = asyncio.run(of_textworld(args.rounds))
        print(f"TextWorld: {game}", flush=True)
        ratio = min(ratio, game.ratio)
        figures |= {"textworld_fork_ms": game.fork_ms, "textworld_copy_ms": game.baseline_ms}
        figures |= {"textworld_ratio": game.ratio}
    else:
        figures["textworld"] = "not installed"
    return conclude("fork", ratio, BAR, also=found.fork_ms < MILLISECONDS_BAR, **figures)


if __name__ == "__main__":
    raise SystemExit(not main())
