"""Instances side by side."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from palaestra.envs.checks.probe import Probe, Skipped, require
from palaestra.envs.episode import Episode, advance, play

_INSTANCES = 4


async def side_by_side(probe: Probe) -> None:
    """Several instances, stepped in turn and at once where they wait, play as each does alone.

    Where instances run in threads they are in fact stepped by several threads here.
    """
    n = probe.room(_INSTANCES)
    if n < 2:
        raise Skipped("it is registered for one instance at a time")
    await probe.needs_repeats()
    alone = await probe.episodes()
    alone = [alone[i % len(alone)] for i in range(n)]
    together = await _interleaved(probe, alone)
    for before, now in zip(alone, together, strict=True):
        require(
            now.links == before.links,
            f"seed {before.seed}, played beside others, goes another way than alone; instances share state. "
            "Mend that, or register it with Placement(kind='process')",
        )


async def _interleaved(probe: Probe, alone: list[Episode]) -> list[Episode]:
    async with AsyncExitStack() as stack:
        envs = [await stack.enter_async_context(probe.open()) for _ in alone]
        played = await asyncio.gather(*(play(e, a.seed, a.actions, 0) for e, a in zip(envs, alone, strict=True)))
        for turn in range(max(len(episode.actions) for episode in alone)):
            going = [
                advance(env, now, before.actions[turn])
                for env, now, before in zip(envs, played, alone, strict=True)
                if turn < len(before.actions) and not now.ended
            ]
            await asyncio.gather(*going)
    return list(played)
