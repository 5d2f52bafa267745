"""The metrics of one iteration, from its episodes and its update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.learner import Update
from palaestra.training.rows import Rows
from palaestra.trajectories.branches import branch_statistics
from palaestra.trajectories.record import Trajectory

ABSENT = (
    *("surrogate", "kl", "entropy_bonus", "smoothing"),
    *("clip_fraction", "dual_clip_fraction", "approx_kl", "rollout_kl"),
    *("h_ref", "corridor_low", "corridor_high", "beta", "frac_below", "frac_above"),
)
"""Metrics that an algorithm may not have, or not in an iteration in which nothing was forwarded; they are `None` there,
so that every row has the same keys."""


def rollout_statistics(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """What the episodes were like: success, reward, length, invalid actions, statuses, counts."""
    steps = [step for t in trajectories for step in t.own_steps]
    return {
        "success": _mean(float(t.success) for t in trajectories),
        "reward": _mean(t.total_reward for t in trajectories),
        "length": _mean(len(t.steps) for t in trajectories),
        "invalid_rate": _mean(float(step.invalid) for step in steps),
        "statuses": dict(sorted(Counter(t.status for t in trajectories).items())),
        "tokens_generated": sum(t.sampled_tokens for t in trajectories),
        "env_steps": len(steps),
        **branch_statistics(trajectories),
    }


def entropy_statistics(rows: Rows, entropy: Tensor) -> dict[str, Any]:
    """Mean entropy of the sampling policy in nats: over all policy tokens, by turn, and by outcome."""
    batch = rows.batch
    success = torch.tensor([t.success for t in rows.trajectories], dtype=torch.bool)[batch.traj]
    values, turns = entropy[batch.mask].double(), batch.step_id[batch.mask]
    won = success[:, None].expand(batch.shape)[batch.mask]
    count = torch.bincount(turns)
    total = torch.bincount(turns, weights=values)
    return {
        "entropy": _tensor_mean(values),
        "entropy_by_turn": [t / c if c else None for t, c in zip(total.tolist(), count.tolist(), strict=True)],
        "entropy_success": _tensor_mean(values[won]),
        "entropy_failure": _tensor_mean(values[~won]),
    }


def update_statistics(rows: Rows, update: Update) -> dict[str, Any]:
    """Everything that is known after an update."""
    batch = update.batch
    assert batch.advantage is not None
    assert batch.old_entropy is not None
    signal = set(batch.group[(batch.advantage != 0).any(1)].tolist())
    return {
        **dict.fromkeys(ABSENT),
        **entropy_statistics(rows, batch.old_entropy),
        **update.metrics,
        "groups": int(batch.group.max()) + 1,
        "groups_with_signal": len(signal),
        "left_out": rows.left_out,
    }


def episode_advantages(batch: Batch) -> list[float]:
    """Of each trajectory in the batch, the mean advantage of its policy tokens."""
    assert batch.advantage is not None
    total, count = (torch.zeros(int(batch.traj.max()) + 1, dtype=torch.float64) for _ in range(2))
    total.index_add_(0, batch.traj, batch.advantage.double().sum(1))
    count.index_add_(0, batch.traj, batch.mask.sum(1).double())
    return [float(value) for value in total / count.clamp(min=1)]


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _tensor_mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
