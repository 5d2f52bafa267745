"""A player who is sometimes an expert and sometimes a bungler: whose play a young model learns from.

A model of such play begins an episode as either and goes on as it began, which leaves reinforcement learning something
to find. A model of the expert alone would have nothing to choose from.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from palaestra.agents.agent import Decision
from palaestra.agents.scripted import OracleAgent, OracleSession, PlainSession
from palaestra.envs.core import Env, Info


@dataclass(frozen=True)
class MixtureAgent:
    """In each episode the environment's expert, the expert with a share of random commands, or random play.

    Where an environment lists no admissible commands there is nothing random to do, and the expert plays alone.
    """

    expert: float = 0.35
    """Share of episodes by the expert alone."""
    noisy: float = 0.4
    """Share of episodes in which a command is random with a chance drawn from `noise`; the rest is random play."""
    noise: tuple[float, float] = (0.1, 0.8)
    name: str = "mixture"

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> MixtureSession:
        """Begin, as one of the three.

        Raises:
            EnvError: the environment has no expert.
        """
        rng = random.Random(seed)
        draw = rng.random()
        chance = 0.0 if draw < self.expert else rng.uniform(*self.noise) if draw < self.expert + self.noisy else 1.0
        return MixtureSession(OracleAgent().session(seed=seed, env=env), chance, rng)


@dataclass
class MixtureSession(PlainSession):
    """An expert, and how often it is not asked."""

    expert: OracleSession
    chance: float
    rng: random.Random

    async def act(self, observation: str, info: Info) -> Decision:
        """A random command or the expert's."""
        commands = info.get("admissible_commands")
        if commands and self.rng.random() < self.chance:
            return Decision(text=self.rng.choice(commands))
        return await self.expert.act(observation, info)
