"""Continuations: `snapshot` and `restore`, and `fork`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from palaestra.envs.checks.probe import Probe, Skipped, require
from palaestra.envs.episode import Episode, advance, any_command, play
from palaestra.envs.fork import close_all


async def snapshotting(probe: Probe) -> None:
    """After `restore`, in the same or a new instance, the same actions have the same outcome."""
    for episode in await probe.episodes():
        half = len(episode.actions) // 2
        rest = episode.actions[half:]
        async with probe.open() as env:
            if not (hasattr(env, "snapshot") and hasattr(env, "restore")):
                raise Skipped("it has no snapshot and restore")
            probe.needs_room(2)
            start = await play(env, episode.seed, episode.actions, half)
            state = await env.snapshot()
            once = await _continue(env, start, rest)
            await env.restore(state)
            require(await _continue(env, start, rest) == once, "after restore the same actions have another outcome")
            async with probe.open() as other:
                await other.restore(state)
                require(await _continue(other, start, rest) == once, "restore into a new instance has another outcome")


async def forking(probe: Probe) -> None:
    """A fork goes on as the original does, and nothing done to one of them affects another."""
    if probe.spec is None:
        raise Skipped("it is not registered, so it cannot be made anew")
    probe.needs_room(3)
    async with probe.open() as env:
        snapshots = hasattr(env, "snapshot")
    if not snapshots:
        await probe.needs_repeats()  # the only way left is to play the episode again
    for episode in await probe.episodes():
        await _fork_halfway(probe, episode)


async def _fork_halfway(probe: Probe, episode: Episode) -> None:
    half = len(episode.actions) // 2
    rest = episode.actions[half:]
    async with probe.open() as env:
        start = await play(env, episode.seed, episode.actions, half)
        siblings: list[Any] = await env.fork(2)
        try:
            astray, faithful = siblings
            await _go_astray(astray, start, len(rest))
            original = await _continue(env, start, rest)
            require(await _continue(faithful, start, rest) == original, "a fork has another outcome than the original")
        finally:
            await close_all(siblings)
    if await probe.repeats():
        require(original == episode.links[-1], "what is done to a fork changes the original")


async def _go_astray(env: Any, start: Episode, steps: int) -> None:
    """Do something else with a fork, then close it."""
    generator, info = random.Random("astray"), start.infos[-1]
    action_kind = type(start.actions[-1]) if start.actions else str
    for turn in range(steps):
        action = any_command(info, generator) if action_kind is str else start.actions[turn % len(start.actions)]
        step = await env.step(action)
        info = step.info
        if step.terminated or step.truncated:
            break
    await env.close()


async def _continue(env: Any, start: Episode, actions: Sequence[Any]) -> str:
    tail = Episode(start.seed, start.first, [], [], [start.links[-1]])
    for action in actions:
        await advance(env, tail, action)
        if tail.ended:
            break
    return tail.links[-1]
