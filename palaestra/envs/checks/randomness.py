"""Where chance may come from: the seed, and nothing else."""

from __future__ import annotations

import random
import sys
from typing import Any

from palaestra.envs.checks.elsewhere import links_elsewhere
from palaestra.envs.checks.probe import Broken, Odd, Probe, Skipped, require
from palaestra.envs.episode import play


async def seeding(probe: Probe) -> None:
    """The same seed gives the same first observation, in a new instance and after another episode."""
    if probe.spec and probe.spec.nondeterministic:
        raise Skipped("registered as nondeterministic")
    for episode in await probe.episodes():
        async with probe.open() as env:
            again = await play(env, episode.seed, probe.actions, 1)
            require(again.links[0] == episode.links[0], _other_start(episode.seed, "in a new instance"))
            await play(env, episode.seed + 1, probe.actions, probe.max_steps)
            again = await play(env, episode.seed, probe.actions, 0)
            require(again.links[0] == episode.links[0], _other_start(episode.seed, "after another episode"))


def _other_start(seed: int, where: str) -> str:
    return f"reset(seed={seed}) starts differently {where}; seed a generator of the instance's own in reset"


async def minding_globals(probe: Probe) -> None:
    """The global generators of `random` and `numpy.random` are left alone."""
    if probe.elsewhere:
        raise Skipped("it runs in another process")
    before = random.getstate(), _numpy_state()
    async with probe.open() as env:
        await play(env, probe.seeds[0], probe.actions, probe.max_steps)
    for name, old, new in zip(("random", "numpy.random"), before, (random.getstate(), _numpy_state()), strict=True):
        require(old == new, f"it uses the global generator of {name}; make a generator of the instance's own in reset")


def _numpy_state() -> tuple[Any, ...] | None:
    np = sys.modules.get("numpy")  # what was not imported by now, the environment does not use
    if np is None:
        return None
    kind, keys, *rest = np.random.get_state()  # the legacy global generator is what is looked at
    return kind, keys.tobytes(), *rest


async def repeating(probe: Probe) -> None:
    """Seed and actions fix the whole episode."""
    if probe.spec and probe.spec.nondeterministic:
        raise Skipped("registered as nondeterministic")
    for episode in await probe.episodes():
        again = await probe.again(episode)
        if again.links != episode.links:
            where = _named(_first_other(episode.links, again.links))
            said = f"seed {episode.seed}, played again, differs at {where}; if that is meant, "
            if probe.spec is None:  # nobody could have declared it yet
                raise Odd(f"{said}register it with nondeterministic=True")
            raise Broken(f"{said}declare it: register(..., nondeterministic=True)")


async def repeating_elsewhere(probe: Probe) -> None:
    """Episodes go the same way in another process, whose hashes of texts are others."""
    if probe.spec and probe.spec.nondeterministic:
        raise Skipped("registered as nondeterministic")
    await probe.needs_repeats()
    episodes = await probe.episodes()
    found = await links_elsewhere(probe, episodes)
    for episode, links in zip(episodes, found, strict=True):
        if links != episode.links:
            probe.other_link = _first_other(episode.links, links)
            raise Broken(
                f"seed {episode.seed} differs in another process at {_named(probe.other_link)}; "
                "sort sets before they are walked through, and use neither hash() nor id()"
            )


def _first_other(before: list[str], now: list[str]) -> int:
    pairs = enumerate(zip(before, now, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(before), len(now)))


def _named(link: int) -> str:
    return f"step {link}" if link else "the reset"
