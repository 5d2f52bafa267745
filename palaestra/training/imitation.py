"""Which of its own past trajectories a policy imitates, and how strongly (SPEAR, Qin et al. 2025, arXiv 2509.22601)."""

from __future__ import annotations

from torch import Tensor


def recalibrated(reward: Tensor, p50: float, std_p50: float | None = None) -> Tensor:
    """`R - p50`: the advantage of replayed trajectories over what is usual by now, [N] float64, a constant.

    Args:
        reward: [N], returns as they were when the trajectories were played.
        p50: median of the mean returns of recent groups, see `BaselineBuffer`.
        std_p50: median of the groups' standard deviations, to divide by where advantages are normalised by theirs;
            above 0.
    """
    advantage = reward.detach().double() - p50
    return advantage if std_p50 is None else advantage / std_p50


def fresh(step: Tensor, now: int, tolerate: int) -> Tensor:
    """[N] bool: played at most `tolerate` iterations before `now`; `step` [N] int64 says when."""
    return now - step <= tolerate


def replayed(advantage: Tensor, again: Tensor, *, strict: bool = True) -> Tensor:
    """[N] bool: good when played and good by now.

    Args:
        advantage: [N], when played.
        again: [N], see `recalibrated`.
        strict: whether one that is as good as the baseline, no better, is left out. Part of the released code keeps
            it, which is `False`.
    """
    return (advantage > 0) & (again > 0 if strict else again >= 0)
