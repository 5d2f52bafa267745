"""What a rollout plays, and how long each part of it may take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from palaestra.envs.core import Env
from palaestra.envs.tasks import Task

EnvMaker = Callable[[str], Env[Any, Any]]
"""Makes an environment from its id: `palaestra.envs.registry.make`, for example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode to play."""

    task: Task
    """What to solve; the environment is reset with the task and the task's seed."""
    id: str
    """Unique in its run. What the agent draws depends on `seed` and `id`."""
    group: str = ""
    """Name of the group: episodes that begin in the same state and are compared with each other."""
    seed: int = 0
    """Seed of what the agent draws; the same for a whole run, group or episode, as `id` tells them apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLimits:
    """How long and how often."""

    max_turns: int = 50
    """Actions of one episode; after the last its record says `truncated`."""
    concurrency: int = 256
    """Episodes played at the same time."""
    retries: int = 1
    """How often a failed episode is started again."""
    start_seconds: float = math.inf
    """Wait for a free place and start the environment; what is placed elsewhere has deadlines of its own."""
    reset_seconds: float = 120.0
    act_seconds: float = 600.0
    step_seconds: float = 120.0
    fork_seconds: float = 600.0
    """Of one fork, which may have to play the episode again; an episode that cannot be forked goes on alone."""
    verify_seconds: float = 600.0
    close_seconds: float = 20.0
