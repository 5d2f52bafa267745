"""What comes back from `reset` and `step`: the five-tuple, types, and nothing that changes afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from palaestra.envs.checks.probe import Odd, Probe, Skipped, require
from palaestra.envs.episode import play
from palaestra.envs.isolation.protocol import MAX_MESSAGE_BYTES
from palaestra.envs.registry import EnvSpec

LONG_BYTES = 4 * 2**20
"""Of an observation, from which on somebody should look."""


async def making(probe: Probe) -> None:
    """It can be made."""
    async with probe.open():
        pass


async def resetting(probe: Probe) -> None:
    """`reset` returns a `Reset`."""
    async with probe.open() as env:
        await play(env, probe.seeds[0], probe.actions, 0)


async def stepping(probe: Probe) -> None:
    """`step` returns a `Step`, with an observation that can be sent; nothing else is tried with one that cannot."""
    longest = await _longest(probe)
    require(
        longest <= MAX_MESSAGE_BYTES,
        f"an observation has {longest / 2**20:.1f} MiB; no message may be over {MAX_MESSAGE_BYTES >> 20} MiB",
    )


async def observing(probe: Probe) -> None:
    """Observations are text or chat messages, of a length that an agent can read."""
    for episode in await probe.episodes():
        for seen in episode.observations:
            require(
                isinstance(seen, str) or _is_messages(seen),
                f"an observation is a {type(seen).__name__}; make it a str, or a list of messages with a role",
            )
    if (longest := await _longest(probe)) > LONG_BYTES:
        raise Odd(f"an observation has {longest / 2**20:.1f} MiB, and records of episodes keep every one; shorten it")


async def _longest(probe: Probe) -> int:
    """Bytes of the longest observation."""
    return max(_size(seen) for episode in await probe.episodes() for seen in episode.observations)


def _size(seen: Any) -> int:
    """Bytes of an observation on its way to another process, more or less."""
    text = seen if isinstance(seen, str) else str(seen)
    return len(text.encode(errors="replace"))


def _is_messages(seen: Any) -> bool:
    return isinstance(seen, list) and all(isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in seen)


async def rewarding(probe: Probe) -> None:
    """Rewards are finite floats."""
    for episode in await probe.episodes():
        for step in episode.steps:
            plain = isinstance(step.reward, float | int) and not isinstance(step.reward, bool)
            require(plain, f"a reward is a {type(step.reward).__name__}; return float(reward)")
            require(math.isfinite(step.reward), f"a reward is {step.reward}; it must be finite")


async def informing(probe: Probe) -> None:
    """Infos are dictionaries, and the keys with a fixed meaning have their type."""
    types = {"success": bool, "invalid": bool, "task_type": str}
    for episode in await probe.episodes():
        for info in episode.infos:
            require(isinstance(info, dict), f"an info is a {type(info).__name__}; make it a dict")
            for key, kind in types.items():
                value = info.get(key, kind())
                require(
                    isinstance(value, kind), f"info[{key!r}] is a {type(value).__name__}; make it a {kind.__name__}"
                )


async def admitting(probe: Probe) -> None:
    """`info["admissible_commands"]`, where there is one, is a list of texts."""
    infos = [info for episode in await probe.episodes() for info in episode.infos if "admissible_commands" in info]
    if not infos:
        raise Skipped("no info has admissible_commands")
    for info in infos:
        commands = info["admissible_commands"]
        texts = isinstance(commands, list) and all(isinstance(command, str) for command in commands)
        require(texts, "info['admissible_commands'] is not a list of str")


async def freshness(probe: Probe) -> None:
    """No step and no reset changes an observation or info that was handed out before."""
    async with probe.open() as env:
        first = await play(env, probe.seeds[0], probe.actions, probe.max_steps)
        await play(env, probe.seeds[-1], probe.actions, 1)
    for episode in [first, *await probe.episodes()]:
        ids = {id(info) for info in episode.infos}
        require(len(ids) == len(episode.infos), "one info dict is returned again and again; make a new one each time")
        require(
            episode.rehash() == episode.links and episode.reprint() == episode.prints,
            "an observation or info changed after it was returned; make new lists and dicts each time",
        )


async def offering_tools(probe: Probe) -> None:
    """`tools()` lists functions in OpenAI's shape."""
    async with probe.open() as env:
        if not hasattr(env, "tools"):
            raise Skipped("it has no tools")
        await env.reset(seed=probe.seeds[0])
        for tool in env.tools():
            named = isinstance(tool.get("function"), Mapping) and isinstance(tool["function"].get("name"), str)
            require(named, f"a tool is not of the shape {{'type': 'function', 'function': {{'name': ...}}}}: {tool}")


async def rendering(probe: Probe) -> None:
    """`render()` is text."""
    async with probe.open() as env:
        if not hasattr(env, "render"):
            raise Skipped("it has no render")
        await env.reset(seed=probe.seeds[0])
        drawn = await env.render()
        require(isinstance(drawn, str), f"render returned a {type(drawn).__name__}; return a str")


async def serialising(probe: Probe) -> None:
    """The spec survives JSON."""
    if probe.spec is None:
        raise Skipped("it is not registered")
    require(EnvSpec.from_json(probe.spec.to_json()) == probe.spec, "the spec read back from its JSON is another one")
