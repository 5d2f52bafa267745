"""From a per-token loss to a scalar, by weights computed once on the whole mini-batch.

A loss is always `sum(weights * loss)`. Because the weights hold the global denominators, splitting the rows into
micro-batches (or over ranks) and summing the partial losses gives exactly the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from palaestra.training.numbering import number

Mode = Literal[
    "token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum-norm",
    "dr-grpo-mean",
    "traj-turn-token",
    "sum",
]
MODES: tuple[Mode, ...] = get_args(Mode)
CONSTANT_MODES: tuple[Mode, ...] = ("seq-mean-token-sum-norm", "dr-grpo-mean")
"""Those with a divisor of their own."""


def token_weights(
    mask: Tensor,
    mode: Mode,
    *,
    step_id: Tensor | None = None,
    traj: Tensor | None = None,
    constant: float | None = None,
) -> Tensor:
    """The weight of every token in the scalar loss, [B, T] float64, 0 where masked out.

    Args:
        mask: [B, T] bool or 0/1: tokens that the policy sampled.
        mode: `token-mean`: every token alike. `seq-mean-token-sum`: rows alike, tokens summed. `seq-mean-token-mean`:
            rows alike, their tokens alike. `seq-mean-token-sum-norm`: tokens summed over all rows, divided by
            `constant`. `dr-grpo-mean`: that divided by the number of rows too (Dr.GRPO, Liu et al. 2025).
            `traj-turn-token`: trajectories alike, their turns alike, their tokens alike (EPO, Xu et al. 2025). Rows,
            turns and trajectories without sampled tokens never count. `sum`: every token 1, for values that hold their
            own weights.
        step_id: [B, T] int64, for `traj-turn-token`.
        traj: [B] int64, for `traj-turn-token` where a trajectory has several rows; default, one row each.
        constant: divisor of the `constant` modes; default T. Give a fixed one where padding may change.

    Raises:
        ValueError: an unknown mode, or `traj-turn-token` without `step_id`.
    """
    inside = mask.bool()
    if mode == "traj-turn-token":
        if step_id is None:
            raise ValueError("traj-turn-token needs step_id")
        return _nested(inside, step_id, traj)
    if mode not in _FLAT:
        raise ValueError(f"unknown aggregation {mode!r}; known: {', '.join(MODES)}")
    scale = float(constant if constant is not None else mask.shape[1])
    per_row = inside.sum(1, dtype=torch.float64)
    return torch.where(inside, _FLAT[mode](per_row, scale)[:, None], 0.0)


def aggregate(
    x: Tensor,
    mask: Tensor,
    mode: Mode,
    *,
    step_id: Tensor | None = None,
    traj: Tensor | None = None,
    constant: float | None = None,
) -> Tensor:
    """`x` [B, T] as a scalar (float64) by `token_weights`; what lies under the mask cannot leak, whatever it is."""
    return weighted_sum(x, mask, token_weights(mask, mode, step_id=step_id, traj=traj, constant=constant))


def weighted_sum(x: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """`sum(weights * x)` over the masked-in tokens, in float64. Masked-out values are never multiplied: no 0 * inf."""
    return (torch.where(mask.bool(), x, 0).double() * weights).sum()


def _active(per_row: Tensor) -> Tensor:
    """Rows with tokens, at least 1."""
    return (per_row > 0).sum().clamp(min=1)


_FLAT: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sum": lambda n, _: torch.ones_like(n),
    "token-mean": lambda n, _: torch.ones_like(n) / n.sum().clamp(min=1),
    "seq-mean-token-sum": lambda n, _: torch.ones_like(n) / _active(n),
    "seq-mean-token-mean": lambda n, _: 1.0 / (n.clamp(min=1) * _active(n)),
    "seq-mean-token-sum-norm": lambda n, constant: torch.ones_like(n) / constant,
    "dr-grpo-mean": lambda n, constant: torch.ones_like(n) / (_active(n) * constant),
}
"""Tokens per row [B] and the constant → weight of each row's tokens [B]."""


def _nested(inside: Tensor, step_id: Tensor, traj: Tensor | None) -> Tensor:
    """1 / (trajectories * turns of the trajectory * tokens of the turn)."""
    weights = torch.zeros(inside.shape, dtype=torch.float64, device=inside.device)
    if not bool(inside.any()):
        return weights
    rows = torch.arange(len(inside), device=inside.device) if traj is None else traj
    trajectory = rows[:, None].expand_as(step_id)[inside]
    turns, turn, tokens = number(torch.stack((trajectory, step_id[inside]), 1))
    _, owner, n_turns = number(turns[:, 0])
    per_turn = 1.0 / (len(n_turns) * n_turns[owner].double() * tokens.double())
    weights[inside] = per_turn[turn]
    return weights
