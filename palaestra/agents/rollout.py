"""The rollout driver: plays many episodes at once and returns one trajectory each, whatever happens.

Every await has a deadline. An episode that fails or hangs is started again in a fresh environment, with the same seeds;
when its attempts are used up its record says `error` or `timeout` and holds what was played. No episode can end
another, or the program, and results do not depend on who finished first. Deadlines end awaits: an environment that
blocks the whole thread needs a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from palaestra.agents.agent import Agent
from palaestra.agents.attempt import Attempt, together
from palaestra.agents.episode import EnvMaker, Episode, RolloutLimits
from palaestra.agents.planner import Planner, Setting
from palaestra.envs.places import Places
from palaestra.envs.registry import spec
from palaestra.errors import PalaestraError
from palaestra.trajectories.record import Trajectory

__all__ = ["EnvMaker", "Episode", "RolloutLimits", "play", "rollout"]


async def rollout(
    episodes: Sequence[Episode],
    agent: Agent,
    make_env: EnvMaker,
    limits: RolloutLimits | None = None,
    *,
    planner: Planner | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play all episodes.

    Args:
        episodes: what to play.
        agent: who plays; one session an attempt.
        make_env: makes a fresh environment for each attempt.
        limits: `RolloutLimits()` if not given.
        planner: plays each group as a whole; `None` plays every episode from its beginning, by itself.
        on_done: called with each trajectory as soon as it is final, in the order of completion.

    Returns:
        One trajectory per episode, in the order of `episodes`.

    Raises:
        ConfigError: the planner cannot play with this agent; nothing was played.
        CancelledError, KeyboardInterrupt: after all environments and sessions are closed.
        Exception: only what `on_done` raised, after the same.
    """
    limits = limits or RolloutLimits()
    if planner is not None:
        planner.check(agent)
        return await _by_group(episodes, agent, make_env, limits, planner, on_done)
    results: list[Trajectory | None] = [None] * len(episodes)
    queue = iter(range(len(episodes)))

    async def work() -> None:
        for index in queue:
            results[index] = trajectory = await play(episodes[index], agent, make_env, limits)
            if on_done:
                on_done(trajectory)
            await asyncio.sleep(0)  # environments and agents that never wait would keep the loop from everybody else

    await together([work() for _ in range(min(max(limits.concurrency, 1), len(episodes)))])
    return [trajectory for trajectory in results if trajectory is not None]


async def play(episode: Episode, agent: Agent, make_env: EnvMaker, limits: RolloutLimits) -> Trajectory:
    """Play one episode, again from the start where it fails, and return the last attempt's record."""
    for number in range(limits.retries + 1):
        attempt = Attempt(episode, agent, make_env, limits, number)
        trajectory = await attempt.played()
        if not attempt.failed:
            break
    return trajectory


async def _by_group(
    episodes: Sequence[Episode],
    agent: Agent,
    make_env: EnvMaker,
    limits: RolloutLimits,
    planner: Planner,
    on_done: Callable[[Trajectory], None] | None,
) -> list[Trajectory]:
    """Play group by group, as many at once as have places for all of their episodes.

    A group takes all its places before it begins: two that wait for each other's would wait for ever.
    """
    groups = list(_groups(episodes))
    places = Places(min([max(limits.concurrency, 1), *_most({e.task.env for e in episodes})]))
    results: list[Trajectory | None] = [None] * len(episodes)

    async def work(members: list[int]) -> None:
        count = min(len(members), places.most)
        await places.take(count)
        try:
            setting = Setting(agent, make_env, limits, count, on_done)
            played = await planner.play([episodes[index] for index in members], setting)
        finally:
            for _ in range(count):
                places.give_back()
        for index, trajectory in zip(members, played, strict=True):
            results[index] = trajectory

    await together([work(members) for members in groups])
    return [trajectory for trajectory in results if trajectory is not None]


def _groups(episodes: Sequence[Episode]) -> Iterator[list[int]]:
    """Positions of the episodes of each group, in order of first appearance; an episode without one is alone."""
    found: dict[str, list[int]] = {}
    for index, episode in enumerate(episodes):
        found.setdefault(f"group {episode.group}" if episode.group else f"episode {index}", []).append(index)
    yield from found.values()


def _most(ids: set[str]) -> Iterator[int]:
    """How many instances of each environment may exist at once, where that is limited."""
    for name in ids:
        with suppress(PalaestraError):  # made by somebody else than the registry
            if (most := spec(name).placement.concurrency) is not None:
                yield most
