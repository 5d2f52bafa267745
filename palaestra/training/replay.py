"""The agent's own good trajectories, kept to be imitated (SPEAR, Qin et al. 2025, arXiv 2509.22601)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from palaestra.errors import CheckpointError
from palaestra.training.imitation import fresh, recalibrated, replayed
from palaestra.training.shuffle import permutation
from palaestra.training.stored import Stored

OLDEST = 10
"""Iterations after which a trajectory leaves whatever the settings say."""


class ReplayBuffer:
    """Trajectories with a positive advantage, oldest first, limited in number and age."""

    def __init__(self, size: int | None = 2048, tolerate: int = 5) -> None:
        """`size`: trajectories, `None` for any number; `tolerate`: iterations that one stays after its own, at most
        `OLDEST`."""
        self._size, self._tolerate = size, min(tolerate, OLDEST)
        self._entries: list[Stored] = []

    @property
    def entries(self) -> tuple[Stored, ...]:
        """Oldest first."""
        return tuple(self._entries)

    def insert(self, trajectories: Iterable[Stored], now: int) -> None:
        """Add those of iteration `now` that did better than their groups; drop the stale, then the oldest."""
        self._entries += [each for each in trajectories if each.advantage > 0]
        self._entries = self._fresh(now)
        if self._size is not None:
            del self._entries[: max(0, len(self._entries) - self._size)]

    def clear(self) -> None:
        """Drop all."""
        self._entries = []

    def good(self, p50: float, now: int, *, strict: bool = True) -> list[Stored]:
        """The trajectories that are not stale and still better than `p50`, oldest first; `strict` as in `replayed`."""
        entries = self._fresh(now)
        reward, advantage = ([getattr(e, name) for e in entries] for name in ("reward", "advantage"))
        again = recalibrated(torch.tensor(reward, dtype=torch.float64), p50)
        good = replayed(torch.tensor(advantage, dtype=torch.float64), again, strict=strict)
        return [entry for entry, chosen in zip(entries, good.tolist(), strict=True) if chosen]

    def select(self, p50: float, now: int, count: int, seed: int, *, strict: bool = True) -> list[Stored]:
        """At most `count` of the good ones, drawn uniformly without replacement; oldest first. The same for the same
        `seed` (the run's) and `now`."""
        good = self.good(p50, now, strict=strict)
        drawn = permutation(len(good), seed, "replay", now)[:count]
        return [good[place] for place in sorted(drawn.tolist())]

    def _fresh(self, now: int) -> list[Stored]:
        steps = torch.tensor([each.step for each in self._entries], dtype=torch.int64)
        keep = fresh(steps, now, self._tolerate).tolist()
        return [each for each, kept in zip(self._entries, keep, strict=True) if kept]

    def state_dict(self) -> dict[str, Any]:
        """JSON values; numbers keep every bit."""
        return {"entries": [each.state_dict() for each in self._entries]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the trajectories by saved ones.

        Raises:
            CheckpointError: `state` did not come from `state_dict`.
        """
        entries = state.get("entries")
        if not isinstance(entries, list):
            raise CheckpointError("not a saved replay buffer: it has no list of entries")
        self._entries = [Stored.of_state(each) for each in entries]
