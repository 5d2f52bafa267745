"""The environment under test, and what a check says about it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from palaestra.envs.checks.surroundings import Surroundings
from palaestra.envs.core import Env, Info, Verdict
from palaestra.envs.deadline import Timed, Watch
from palaestra.envs.episode import Choose, Episode, play
from palaestra.envs.registry import EnvSpec

RANDOM_EPISODES = 10


class Broken(Exception):
    """The promise is not kept; the message says what to do."""


class Odd(Exception):
    """Nothing is broken, but somebody should look; the message says at what."""


class Skipped(Exception):
    """The check does not apply; the message says why."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """How an agent that knows nothing fares."""

    agent: str
    """`random`: any admissible command; `empty`: no text at all; `nonsense`: text that means nothing."""
    episodes: int
    reward: float
    """Mean sum of rewards of an episode."""
    success: float
    """Share of episodes that were solved, 0 to 1."""

    def __str__(self) -> str:
        return f"mean reward {self.reward:.3g}, {100 * self.success:.0f} % solved ({self.episodes} episodes)"


@dataclass(frozen=True, slots=True)
class Wandered:
    """An episode of a random agent."""

    episode: Episode
    verdict: Verdict | None
    """What grading said, where the environment grades."""


@dataclass(slots=True)
class Probe:
    """How to make the environment, and the episodes that were played so far."""

    factory: Callable[[], Env[Any, Any]]
    spec: EnvSpec | None
    """`None` for one that is not registered."""
    seeds: Sequence[int]
    max_steps: int
    actions: Choose | Sequence[Any]
    watch: Watch
    baselines: list[Baseline] = field(default_factory=list)
    """What the agents that know nothing got."""
    other_link: int | None = None
    """First link of a hash chain that was another one in another process, 0 for that of the reset."""
    surroundings: Surroundings = field(default_factory=Surroundings.now)
    """Before the environment was first made."""
    _episodes: dict[int, Episode] = field(default_factory=dict)
    _wandered: list[Wandered] = field(default_factory=list)
    _repeats: bool | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        """A new instance, ready to be reset, every call of it within its deadline; it is closed at the end."""
        env = await self.made()
        try:
            await env.start()
            yield env
        finally:
            await env.close()

    async def made(self) -> Timed:
        """A new instance that nobody has started, and that the caller closes."""
        return Timed(await self.watch("make", self._made()), self.watch)

    async def _made(self) -> Env[Any, Any]:
        return self.factory()

    async def episode(self, seed: int) -> Episode:
        """The episode of `seed`, played once, in an instance of its own."""
        if seed not in self._episodes:
            async with self.open() as env:
                self._episodes[seed] = await play(env, seed, self.actions, self.max_steps)
        return self._episodes[seed]

    async def episodes(self) -> list[Episode]:
        """Those of all seeds."""
        return [await self.episode(seed) for seed in self.seeds]

    async def wandering(self) -> list[Wandered]:
        """Episodes of a random agent, each with a seed and an instance of its own; played once."""
        first = max(self.seeds) + 1
        for seed in range(first + len(self._wandered), first + RANDOM_EPISODES):
            async with self.open() as env:
                episode = await play(env, seed, self._any, self.max_steps)
                verdict = await env.verify() if hasattr(env, "verify") else None
            self._wandered.append(Wandered(episode, verdict))
        return self._wandered

    def _any(self, info: Info, generator: random.Random) -> Any:
        return self.actions(info, generator) if callable(self.actions) else generator.choice(self.actions)

    async def again(self, episode: Episode) -> Episode:
        """The same seed and actions, in a new instance."""
        async with self.open() as env:
            return await play(env, episode.seed, episode.actions, len(episode.actions))

    async def repeats(self) -> bool:
        """Whether every episode goes the same way when it is played again."""
        if self._repeats is None:
            self._repeats = all([(await self.again(e)).links == e.links for e in await self.episodes()])
        return self._repeats

    async def needs_repeats(self) -> None:
        """Skip the check where seed and actions do not fix an episode."""
        if not await self.repeats():
            raise Skipped("its episodes cannot be repeated")

    async def writes_text(self) -> None:
        """Skip the check where actions are not text."""
        actions = [action for episode in await self.episodes() for action in episode.actions]
        if not all(isinstance(action, str) for action in actions):
            raise Skipped("its actions are not text")

    def room(self, n: int) -> int:
        """`n`, or as many instances as may exist at once."""
        limit = self.spec.placement.concurrency if self.spec else None
        return n if limit is None else min(n, limit)

    def needs_room(self, n: int) -> None:
        """Skip the check where not so many instances may exist at once."""
        if self.room(n) < n:
            raise Skipped(f"it is registered for at most {self.room(n)} instance at once")

    @property
    def elsewhere(self) -> bool:
        """Whether instances run outside this process."""
        return self.spec is not None and self.spec.placement.kind in ("process", "interpreter", "remote")


def require(kept: bool, otherwise: str) -> None:
    """Raise `Broken` with `otherwise`, unless `kept`."""
    if not kept:
        raise Broken(otherwise)
