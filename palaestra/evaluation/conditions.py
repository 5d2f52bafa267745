"""Under which conditions an episode was played: what decides whether a stored one stands for one that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from palaestra.agents.agent import Agent, SupportsIdentity
from palaestra.agents.rollout import Episode, RolloutLimits
from palaestra.trajectories.record import Trajectory

KEY = "conditions"
"""Where a stored episode has them, in `Trajectory.meta`."""
_SHOWN = 60
"""Most characters of a value in a message."""


def conditions_of(agent: Agent, limits: RolloutLimits) -> dict[str, Any]:
    """Those that all episodes of an evaluation share. Deadlines are none: what they cut off is played again."""
    identity = agent.identity if isinstance(agent, SupportsIdentity) else {}
    shared: dict[str, Any] = _plain({"agent": agent.name, **identity, "max_turns": limits.max_turns})
    return shared


def difference(
    stored: Trajectory, wanted: Episode, conditions: Mapping[str, Any], temperature: float | None
) -> str | None:
    """In which way `stored` was not played as `wanted` would be now, as part of a sentence; `None` if in none."""
    task = wanted.task
    pairs = {
        "agent": (stored.agent, conditions["agent"]),
        "task": (stored.task, task.name),
        "task seed": (stored.task_seed, task.seed),
        "task parameters": (stored.params, _plain(task.params)),
        "seed": (stored.seed, wanted.seed),
        "temperature": (stored.meta.get("temperature"), temperature),
    }
    known = stored.meta.get(KEY)
    if isinstance(known, Mapping):
        pairs |= {key: (known.get(key), conditions.get(key)) for key in {**conditions, **known} if key not in pairs}
    for what, (before, now) in pairs.items():
        if before != now:
            return f"was played with {what} {_shown(before)}, not {_shown(now)}"
    return None if isinstance(known, Mapping) else "does not say with which weights and settings it was played"


def _plain(value: Any) -> Any:
    """As it comes back from a trajectory file."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value, enc_hook=lambda odd: odd.tolist()))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
