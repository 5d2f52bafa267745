"""The checks that `check_env` runs: each is one promise of the contract in `core.py`, as a coroutine.

A check returns if the promise is kept, raises `Broken` with the mend if not, and `Skipped` where the environment does
not offer what it looks at.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palaestra.envs.core import Env, SupportsOracle, SupportsRender, SupportsSnapshot, SupportsTools
from palaestra.envs.episode import Choose, Episode, advance, play
from palaestra.envs.registry import EnvSpec
from palaestra.errors import EnvError

NONSENSE = "\u2603 xyzzy plugh"
ORACLE_STEPS = 500
"""Most steps in which an oracle may solve a task."""


class Broken(Exception):
    """The promise is not kept; the message says what to do."""


class Skipped(Exception):
    """The check does not apply; the message says why."""


@dataclass(slots=True)
class Probe:
    """The environment under test, and the episodes played so far."""

    factory: Callable[[], Env[Any, Any]]
    spec: EnvSpec | None
    """`None` for one that is not registered."""
    seeds: Sequence[int]
    max_steps: int
    actions: Choose | Sequence[Any]
    _episodes: dict[int, Episode] = field(default_factory=dict)

    def make(self) -> Env[Any, Any]:
        """A new instance."""
        return self.factory()

    async def episode(self, seed: int) -> Episode:
        """The episode of `seed`, played once, in an instance of its own."""
        if seed not in self._episodes:
            async with self.make() as env:
                self._episodes[seed] = await play(env, seed, self.actions, self.max_steps)
        return self._episodes[seed]

    async def episodes(self) -> list[Episode]:
        """Those of all seeds."""
        return [await self.episode(seed) for seed in self.seeds]


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise Broken(otherwise)


async def making(probe: Probe) -> None:
    """It can be made."""
    await probe.make().close()


async def resetting(probe: Probe) -> None:
    """`reset` returns a `Reset`."""
    async with probe.make() as env:
        await play(env, probe.seeds[0], probe.actions, 0)


async def stepping(probe: Probe) -> None:
    """`step` returns a `Step`."""
    await probe.episodes()


async def observing(probe: Probe) -> None:
    """Observations are text or chat messages."""
    for episode in await probe.episodes():
        for seen in episode.observations:
            _require(
                isinstance(seen, str) or _is_messages(seen),
                f"an observation is a {type(seen).__name__}; make it a str, or a list of messages with a role",
            )


def _is_messages(seen: Any) -> bool:
    return isinstance(seen, list) and all(isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in seen)


async def rewarding(probe: Probe) -> None:
    """Rewards are finite floats."""
    for episode in await probe.episodes():
        for step in episode.steps:
            plain = isinstance(step.reward, float | int) and not isinstance(step.reward, bool)
            _require(plain, f"a reward is a {type(step.reward).__name__}; return float(reward)")
            _require(math.isfinite(step.reward), f"a reward is {step.reward}; it must be finite")


async def ending(probe: Probe) -> None:
    """`terminated` and `truncated` are bools."""
    for episode in await probe.episodes():
        for step in episode.steps:
            for name in ("terminated", "truncated"):
                flag = getattr(step, name)
                _require(isinstance(flag, bool), f"{name} is a {type(flag).__name__}; return bool({name})")


async def informing(probe: Probe) -> None:
    """Infos are dictionaries, and the keys with a fixed meaning have their type."""
    types = {"success": bool, "invalid": bool, "task_type": str}
    for episode in await probe.episodes():
        for info in episode.infos:
            _require(isinstance(info, dict), f"an info is a {type(info).__name__}; make it a dict")
            for key, kind in types.items():
                value = info.get(key, kind())
                _require(
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
        _require(texts, "info['admissible_commands'] is not a list of str")


async def freshness(probe: Probe) -> None:
    """No step changes an observation or info that was handed out before."""
    for episode in await probe.episodes():
        ids = {id(info) for info in episode.infos}
        _require(len(ids) == len(episode.infos), "one info dict is returned again and again; make a new one each time")
        _require(
            episode.rehash() == episode.links,
            "an observation or info changed after it was returned; make new lists and dicts each time",
        )


async def seeding(probe: Probe) -> None:
    """The same seed gives the same first observation, in a new instance and after another episode."""
    if probe.spec and probe.spec.nondeterministic:
        raise Skipped("registered as nondeterministic")
    for episode in await probe.episodes():
        async with probe.make() as env:
            again = await play(env, episode.seed, probe.actions, 1)
            _require(again.links[0] == episode.links[0], _other_start(episode.seed, "in a new instance"))
            await play(env, episode.seed + 1, probe.actions, probe.max_steps)
            again = await play(env, episode.seed, probe.actions, 0)
            _require(again.links[0] == episode.links[0], _other_start(episode.seed, "after another episode"))


def _other_start(seed: int, where: str) -> str:
    return f"reset(seed={seed}) starts differently {where}; seed a generator of the instance's own in reset"


async def minding_globals(probe: Probe) -> None:
    """The global generators of `random` and `numpy.random` are left alone."""
    before = random.getstate(), _numpy_state()
    async with probe.make() as env:
        await play(env, probe.seeds[0], probe.actions, probe.max_steps)
    for name, old, new in zip(("random", "numpy.random"), before, (random.getstate(), _numpy_state()), strict=True):
        _require(old == new, f"it uses the global generator of {name}; make a generator of the instance's own in reset")


def _numpy_state() -> tuple[Any, ...]:
    import numpy as np  # slow, and nothing else here needs it

    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  # the legacy global generator is what is looked at
    return kind, keys.tobytes() if isinstance(keys, np.ndarray) else keys, *rest


async def closing(probe: Probe) -> None:
    """`close` may be called without `reset`, and twice."""
    env = probe.make()
    await env.close()
    env = probe.make()
    await play(env, probe.seeds[0], probe.actions, 1)
    await env.close()
    await env.close()


async def ordering(probe: Probe) -> None:
    """`step` is refused before `reset` and after the end."""
    action = (await probe.episode(probe.seeds[0])).actions[0]
    async with probe.make() as env:
        await _refused(env, action, "before reset")
    for episode in await probe.episodes():
        if episode.ended:
            async with probe.make() as env:
                await play(env, episode.seed, episode.actions, len(episode.actions))
                await _refused(env, action, "after the end of the episode")
            return


async def _refused(env: Env[Any, Any], action: Any, when: str) -> None:
    try:
        await env.step(action)
    except EnvError:
        return
    raise Broken(f"step {when} is not refused; raise EnvError")


async def answering(probe: Probe) -> None:
    """An action that makes no sense is answered, not raised."""
    if not isinstance((await probe.episode(probe.seeds[0])).actions[0], str):
        raise Skipped("its actions are not text")
    async with probe.make() as env:
        try:
            await play(env, probe.seeds[0], [NONSENSE], 1)
        except Exception as error:
            raise Broken(
                f"a command that makes no sense raised {error!r}; answer it and set info['invalid']"
            ) from error


async def snapshotting(probe: Probe) -> None:
    """After `restore`, in the same or a new instance, the same actions have the same outcome."""
    for episode in await probe.episodes():
        half = len(episode.actions) // 2
        rest = episode.actions[half:]
        async with probe.make() as env, probe.make() as other:
            if not isinstance(env, SupportsSnapshot) or not isinstance(other, SupportsSnapshot):
                raise Skipped("it has no snapshot and restore")
            start = await play(env, episode.seed, episode.actions, half)
            state = await env.snapshot()
            once = await _continue(env, start, rest)
            await env.restore(state)
            _require(await _continue(env, start, rest) == once, "after restore the same actions have another outcome")
            await other.restore(state)
            _require(await _continue(other, start, rest) == once, "restore into a new instance has another outcome")


async def _continue(env: Any, start: Episode, actions: Sequence[Any]) -> str:
    tail = Episode(start.seed, start.first, [], [], [start.links[-1]])
    for action in actions:
        await advance(env, tail, action)
        if tail.ended:
            break
    return tail.links[-1]


async def advising(probe: Probe) -> None:
    """The oracle solves the task of every seed."""
    for seed in probe.seeds:
        async with probe.make() as env:
            if not isinstance(env, SupportsOracle):
                raise Skipped("it has no oracle")
            episode = await play(env, seed, probe.actions, 0)
            while not episode.ended and len(episode.steps) < ORACLE_STEPS:
                await advance(env, episode, await env.oracle())
        _require(episode.solved, f"the oracle did not solve seed {seed} in {len(episode.steps)} steps")


async def advising_purely(probe: Probe) -> None:
    """Asking the oracle changes nothing."""
    for episode in await probe.episodes():
        async with probe.make() as env:
            if not isinstance(env, SupportsOracle):
                raise Skipped("it has no oracle")
            again = await play(env, episode.seed, probe.actions, 0)
            if again.links != episode.links[:1]:
                raise Skipped("its episodes cannot be repeated")
            for action in episode.actions:
                advice = await env.oracle()
                _require(await env.oracle() == advice, "the oracle, asked twice, gives two answers")
                await advance(env, again, action)
        async with probe.make() as env:
            quiet = await play(env, episode.seed, episode.actions, len(episode.actions))
        if quiet.links == episode.links:
            _require(again.links == quiet.links, "asking the oracle changes the episode")


async def offering_tools(probe: Probe) -> None:
    """`tools()` lists functions in OpenAI's shape."""
    async with probe.make() as env:
        if not isinstance(env, SupportsTools):
            raise Skipped("it has no tools")
        await env.reset(seed=probe.seeds[0])
        for tool in env.tools():
            named = isinstance(tool.get("function"), Mapping) and isinstance(tool["function"].get("name"), str)
            _require(named, f"a tool is not of the shape {{'type': 'function', 'function': {{'name': ...}}}}: {tool}")


async def rendering(probe: Probe) -> None:
    """`render()` is text."""
    async with probe.make() as env:
        if not isinstance(env, SupportsRender):
            raise Skipped("it has no render")
        await env.reset(seed=probe.seeds[0])
        drawn = await env.render()
        _require(isinstance(drawn, str), f"render returned a {type(drawn).__name__}; return a str")


async def serialising(probe: Probe) -> None:
    """The spec survives JSON."""
    if probe.spec is None:
        raise Skipped("it is not registered")
    _require(EnvSpec.from_json(probe.spec.to_json()) == probe.spec, "the spec read back from its JSON is another one")


GATES: dict[str, Callable[[Probe], Awaitable[None]]] = {"make": making, "reset": resetting, "step": stepping}
"""What everything else needs."""

CHECKS: dict[str, Callable[[Probe], Awaitable[None]]] = {
    **GATES,
    "observations are text": observing,
    "rewards are finite floats": rewarding,
    "flags are bools": ending,
    "infos are dicts": informing,
    "admissible commands": admitting,
    "nothing returned changes": freshness,
    "seed": seeding,
    "global generators untouched": minding_globals,
    "close": closing,
    "order of calls": ordering,
    "nonsense is answered": answering,
    "snapshot": snapshotting,
    "oracle solves": advising,
    "oracle changes nothing": advising_purely,
    "tools": offering_tools,
    "render": rendering,
    "spec": serialising,
}
