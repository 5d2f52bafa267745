"""Rollout planners: who decides which episodes of a group begin at the prompt, and which ones branch off another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from palaestra.agents.agent import Agent
from palaestra.agents.episode import EnvMaker, Episode, RolloutLimits
from palaestra.trajectories.record import Trajectory


@dataclass(frozen=True, slots=True)
class Setting:
    """What all groups of a rollout have in common."""

    agent: Agent
    make_env: EnvMaker
    limits: RolloutLimits
    places: int
    """Most episodes of the group that may be alive at once, at least 1."""
    on_done: Callable[[Trajectory], None] | None = None
    """Called with each trajectory as soon as it is final."""


class Planner(Protocol):
    """Plays whole groups."""

    def check(self, agent: Agent) -> None:
        """Look, before anything is played, whether the agent can be played so.

        Raises:
            ConfigError: it cannot.
        """

    async def play(self, group: Sequence[Episode], setting: Setting) -> list[Trajectory]:
        """One trajectory per episode of the group, in the order of `group`; none of them the copy of another.

        The episodes have one task, and differ in their ids. What comes of them depends on their seeds and ids and on
        `setting`, never on how long anything took.
        """
