"""Group-relative advantage: how much better an episode did than the others that began in the same state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.training.numbering import number

Normalise = Literal["std", "popstd", "mean", "rloo", "none"]
Weighting = Literal["trajectory", "row"]
Singleton = Literal["zero", "raw"]

EQUAL = 1e-6
"""Returns this close are the same: more of a difference comes from what was played, less from the order of a sum."""


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Of each group, [G]."""

    count: Tensor
    mean: Tensor
    squares: Tensor
    """Sum of squared deviations from the mean."""
    flat: Tensor
    """bool: all values equal. Kept apart because the mean of equal numbers may differ from them in the last bit, and so
    may sums of the same rewards."""

    @classmethod
    def of(cls, value: Tensor, group: Tensor) -> _Statistics:
        zeros = value.new_zeros(int(group.max()) + 1 if len(group) else 0)
        count = zeros.long().index_add(0, group, torch.ones_like(group))
        mean = zeros.index_add(0, group, value) / count.clamp(min=1)
        squares = zeros.index_add(0, group, (value - mean[group]) ** 2)
        low = zeros.scatter_reduce(0, group, value, "amin", include_self=False)
        high = zeros.scatter_reduce(0, group, value, "amax", include_self=False)
        return cls(count, mean, squares, high - low <= EQUAL)


def group_advantage(
    reward: Tensor,
    group: Tensor,
    traj: Tensor,
    *,
    normalise: Normalise = "std",
    weighting: Weighting = "trajectory",
    singleton: Singleton = "zero",
    eps: float = 1e-6,
) -> Tensor:
    """One advantage per row, [B] float64; a group whose rewards are all equal gets exactly 0, but for `none`.

    Args:
        reward: [B], the total reward of the row's trajectory.
        group: [B] int64; rows of one group began in the same state.
        traj: [B] int64; rows of one trajectory have the same reward and group.
        normalise: `std`: (R - mean) / (std + eps), divisor n-1 (GRPO, Shao et al. 2024). `mean`: R - mean (Dr.GRPO,
            Liu et al. 2025). `rloo`: n / (n-1) (R - mean). `popstd`: as `std` with divisor n, for comparison only.
            `none`: R itself (REINFORCE, Williams 1992).
        weighting: `trajectory`: each trajectory counts once in its group's statistics. `row`: each row does, as the
            verl-agent code has it, which lets long episodes weigh more.
        singleton: a group with one entry: `zero` gives 0; `raw` takes mean 0 and std 1, as verl does.
        eps: added to the standard deviation.

    Raises:
        ValueError: rows of one trajectory with different rewards or groups.
    """
    reward = reward.double()
    member = number(group).number
    if weighting == "row":
        return normalised(reward, member, normalise, singleton, eps)
    entry_reward, entry_group, entry = _entries(reward, member, traj)
    return normalised(entry_reward, entry_group, normalise, singleton, eps)[entry]


def _entries(reward: Tensor, group: Tensor, traj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards and groups [E] of the trajectories, and each row's trajectory [B]."""
    known, entry, _ = number(traj)
    entry_reward = reward.new_zeros(len(known)).scatter_reduce_(0, entry, reward, "amax", include_self=False)
    entry_group = group.new_zeros(len(known)).scatter_reduce_(0, entry, group, "amax", include_self=False)
    if bool((entry_reward[entry] != reward).any()) or bool((entry_group[entry] != group).any()):
        raise ValueError("rows of one trajectory must have the same reward and group")
    return entry_reward, entry_group, entry


def normalised(value: Tensor, group: Tensor, normalise: Normalise, singleton: Singleton, eps: float) -> Tensor:
    """Advantages of entries [E] float64 within their groups [E], numbered from 0; see `group_advantage`."""
    if normalise == "none":
        return value
    stats = _Statistics.of(value, group)
    n = stats.count[group].double()
    centred = value - stats.mean[group]
    alone = n == 1
    if singleton == "raw":
        centred = torch.where(alone, value, centred)
    match normalise:
        case "mean":
            result = centred
        case "rloo":
            result = torch.where(alone, 1.0, n / (n - 1).clamp(min=1)) * centred
        case "std" | "popstd":
            divisor = (n - 1 if normalise == "std" else n).clamp(min=1)
            std = torch.where(alone, 1.0, (stats.squares[group] / divisor).sqrt())
            result = centred / (std + eps)
        case _:
            raise ValueError(f"unknown normalisation {normalise!r}; known: std, popstd, mean, rloo, none")
    flat = stats.flat[group] if singleton == "zero" else stats.flat[group] & ~alone
    return torch.where(flat, 0.0, result)
