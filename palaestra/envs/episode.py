"""One played episode, with a hash chain over all that the agent could see: equal chains mean equal episodes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.hashing import chain, digest
from palaestra.seeds import derive_seed

Choose = Callable[[Info, random.Random], Any]
"""Picks an action after an info, with the generator given."""

COMMON_COMMANDS = ("look", "inventory", "help", "wait", "0", "1")
NONSENSE = "\u2603 xyzzy plugh"
"""A command that no environment understands."""
_KNOWN_INFO = ("admissible_commands", "success", "invalid", "task_type")


@dataclass(frozen=True, slots=True)
class Episode:
    """What was done and what came of it."""

    seed: int
    first: Reset[Any]
    actions: list[Any]
    steps: list[Step[Any]]
    links: list[str]
    """Hash chain at the time: `links[0]` of the first observation, `links[i]` up to and including `steps[i - 1]`."""
    prints: list[str] = field(default_factory=list)
    """Hash of each observation with its whole info, at the time."""

    @property
    def infos(self) -> list[Info]:
        """Of the reset and of every step."""
        return [self.first.info, *(step.info for step in self.steps)]

    @property
    def observations(self) -> list[Any]:
        """Of the reset and of every step."""
        return [self.first.observation, *(step.observation for step in self.steps)]

    @property
    def ended(self) -> bool:
        """Whether the environment ended it."""
        return bool(self.steps) and (self.steps[-1].terminated or self.steps[-1].truncated)

    @property
    def total(self) -> float:
        """Sum of rewards; what is no finite number counts nothing, for a check reports it."""
        numbers = [float(step.reward) for step in self.steps if isinstance(step.reward, SupportsFloat)]
        return sum(filter(math.isfinite, numbers))

    @property
    def solved(self) -> bool:
        """`info["success"]` at its end, or, where there is none, a positive sum of rewards."""
        return bool(_known(self.infos[-1]).get("success", self.total > 0))

    def rehash(self) -> list[str]:
        """The chain computed again, from the observations and infos as they are now."""
        links = [seen("", self.first)]
        for step in self.steps:
            links.append(seen(links[-1], step))
        return links

    def reprint(self) -> list[str]:
        """The `prints` computed again, from the observations and infos as they are now."""
        return [digest(*seen) for seen in zip(self.observations, self.infos, strict=True)]


def any_command(info: Info, generator: random.Random) -> str:
    """One of the admissible commands, or a common one where the environment lists none."""
    commands: Sequence[str] = _known(info).get("admissible_commands") or COMMON_COMMANDS
    return generator.choice(commands)


async def play(env: Env[Any, Any], seed: int, actions: Choose | Sequence[Any], max_steps: int) -> Episode:
    """Play one episode to its end, or to `max_steps`.

    Args:
        env: any environment; it is reset with `seed`.
        seed: of the environment; the generator that `actions` gets is derived from it, and unrelated to `Random(seed)`.
        actions: a function, or the actions in order, repeated if they run out.
        max_steps: most steps.
    """
    first = await env.reset(seed=seed)
    generator = random.Random(derive_seed(seed, "agent"))  # the environment may well draw from Random(seed)
    episode = Episode(seed, first, [], [], [seen("", first)], [digest(first.observation, first.info)])
    while len(episode.steps) < max_steps and not episode.ended:
        turn = len(episode.steps)
        action = actions(episode.infos[-1], generator) if callable(actions) else actions[turn % len(actions)]
        await advance(env, episode, action)
    return episode


async def advance(env: Env[Any, Any], episode: Episode, action: Any) -> None:
    """Take one step and add it to the episode."""
    step = await env.step(action)
    episode.actions.append(action)
    episode.steps.append(step)
    episode.links.append(seen(episode.links[-1], step))
    episode.prints.append(digest(step.observation, step.info))


def seen(previous: str, turn: Reset[Any] | Step[Any]) -> str:
    """The link after `previous`: everything of `turn`, of its info only the keys with a fixed meaning."""
    outcome = () if isinstance(turn, Reset) else (turn.reward, turn.terminated, turn.truncated)
    return chain(previous, digest(turn.observation), *outcome, _known(turn.info))


def _known(info: Any) -> dict[str, Any]:
    """What has a fixed meaning; nothing if `info` is no dictionary, which a check reports."""
    return {key: info[key] for key in _KNOWN_INFO if key in info} if isinstance(info, dict) else {}
