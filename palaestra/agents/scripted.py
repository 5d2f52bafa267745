"""Agents without a model: a fixed script, the random baseline, and the environment's own expert."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from palaestra.agents.agent import Decision
from palaestra.envs.core import Env, Info, SupportsOracle
from palaestra.errors import EnvError
from palaestra.trajectories.record import Node


@dataclass
class PlainSession:
    """A session that holds no tokens and nothing to release."""

    nodes: list[Node] = field(default_factory=list, init=False)

    async def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True)
class ScriptedAgent:
    """Plays the same actions in every episode; an episode that goes on after the last of them fails."""

    actions: Sequence[str]
    name: str = "scripted"

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> ScriptedSession:
        """Begin at the first action."""
        return ScriptedSession(self.actions)

    def fork(self, session: ScriptedSession, *, seed: int, env: Env[Any, Any] | None = None) -> ScriptedSession:
        """Begin at the action that `session` took last."""
        return ScriptedSession(self.actions, session.position - 1)


@dataclass
class ScriptedSession(PlainSession):
    """A position in the script."""

    actions: Sequence[str]
    position: int = 0

    async def act(self, observation: str, info: Info) -> Decision:
        """The next action.

        Raises:
            EnvError: there is none left.
        """
        if self.position == len(self.actions):
            raise EnvError(f"the script ended after {self.position} actions and the episode has not")
        self.position += 1
        return Decision(text=self.actions[self.position - 1])


@dataclass(frozen=True)
class RandomAgent:
    """Draws uniformly from the admissible commands."""

    name: str = "random"

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> RandomSession:
        """Begin with a generator of its own."""
        return RandomSession(random.Random(seed))

    def fork(self, session: RandomSession, *, seed: int, env: Env[Any, Any] | None = None) -> RandomSession:
        """Begin with a generator of its own."""
        return RandomSession(random.Random(seed))


@dataclass
class RandomSession(PlainSession):
    """A generator."""

    generator: random.Random

    async def act(self, observation: str, info: Info) -> Decision:
        """One of the admissible commands.

        Raises:
            EnvError: the environment gives none.
        """
        commands = info.get("admissible_commands")
        if not commands:
            raise EnvError("the environment gives no admissible_commands to draw from; the random agent needs them")
        return Decision(text=self.generator.choice(commands))


@dataclass(frozen=True)
class OracleAgent:
    """Does what the environment's own expert says."""

    name: str = "oracle"

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> OracleSession:
        """Begin with the environment at hand.

        Raises:
            EnvError: it has no expert.
        """
        if not isinstance(env, SupportsOracle):
            raise EnvError(f"{type(env).__name__} has no oracle() method; choose another agent")
        return OracleSession(env)


@dataclass
class OracleSession(PlainSession):
    """An environment that knows what to do."""

    env: SupportsOracle

    async def act(self, observation: str, info: Info) -> Decision:
        """The next action of the expert's plan."""
        return Decision(text=str(await self.env.oracle()))
