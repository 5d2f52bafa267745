"""GiGPO (Feng et al. 2025): episode advantage plus a step advantage among visits to the same state.

Rows are turns here, in time order within their trajectory. Turns of one group that began in the same environment state
(the *anchor*) are compared by their discounted return to go.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from palaestra.training.advantage import Singleton, Weighting, group_advantage, normalised
from palaestra.training.numbering import number


def discounted_return(reward: Tensor, traj: Tensor, gamma: float = 0.95) -> Tensor:
    """`R_t = r_t + gamma R_{t+1}` within each trajectory, [B] float64; rows of a trajectory in time order."""
    result = reward.double().clone()
    following: dict[int, int] = {}
    for row, owner in reversed(list(enumerate(traj.tolist()))):
        if owner in following:
            result[row] += gamma * result[following[owner]]
        following[owner] = row
    return result


def anchor_groups(group: Tensor, anchor: Tensor) -> Tensor:
    """[B] int64, numbered from 0: rows with the same group and anchor."""
    return number(torch.stack((group, anchor), 1)).number


def episode_return(reward: Tensor, traj: Tensor) -> Tensor:
    """Undiscounted sum of each trajectory's step rewards, repeated on its rows, [B] float64."""
    entry = number(traj).number
    return reward.new_zeros(len(reward), dtype=torch.float64).index_add(0, entry, reward.double())[entry]


def step_advantage(
    reward: Tensor,
    group: Tensor,
    traj: Tensor,
    anchor: Tensor,
    *,
    gamma: float = 0.95,
    normalise: Literal["mean", "std"] = "mean",
    eps: float = 1e-6,
) -> Tensor:
    """Return to go against the mean of the row's anchor group, [B] float64; 0 where the anchor is alone."""
    returns = discounted_return(reward, traj, gamma)
    return normalised(returns, anchor_groups(group, anchor), normalise, "zero", eps)


def gigpo_advantage(
    reward: Tensor,
    group: Tensor,
    traj: Tensor,
    anchor: Tensor,
    *,
    gamma: float = 0.95,
    omega: float = 1.0,
    normalise: Literal["mean", "std"] = "mean",
    weighting: Weighting = "trajectory",
    singleton: Singleton = "zero",
    eps: float = 1e-6,
) -> Tensor:
    """Episode advantage + `omega` * step advantage, [B] float64.

    Args:
        reward: [B], the step's own reward.
        group: [B] int64; rows of one group began in the same state.
        traj: [B] int64.
        anchor: [B] int64, a hash of the *environment* observation (not of the prompt, which holds the history).
        gamma: discount of the return to go.
        omega: weight of the step advantage.
        normalise: of both parts.
        weighting: of the episode part; see `group_advantage`.
        singleton: of the episode part; an anchor that is alone always gets 0.
        eps: added to standard deviations.
    """
    episode = group_advantage(
        episode_return(reward, traj),
        group,
        traj,
        normalise=normalise,
        weighting=weighting,
        singleton=singleton,
        eps=eps,
    )
    return episode + omega * step_advantage(reward, group, traj, anchor, gamma=gamma, normalise=normalise, eps=eps)
