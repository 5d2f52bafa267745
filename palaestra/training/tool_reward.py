"""SPEAR's reward for calling tools (Qin et al. 2025, arXiv 2509.22601), which a schedule fades out."""

from __future__ import annotations

from torch import Tensor


def tool_call_reward(
    calls: Tensor, *, outcome: Tensor | None = None, per_call: float = 0.1, cap: float = 1.0
) -> Tensor:
    """`min(cap, per_call * calls)` of each trajectory, [N] float64.

    Args:
        calls: [N], how many of the agent's messages call a tool.
        outcome: [N]: where it is positive, the reward is 1 for any call and 0 for none, which leaves no reason to call
            more often where the task is solved anyway. `None`: by number everywhere.
        per_call: what each call gives.
        cap: the most that calls give.
    """
    by_number = (per_call * calls.double()).clamp(max=cap)
    return by_number if outcome is None else (calls > 0).double().where(outcome > 0, by_number)


def composite_reward(outcome: Tensor, tool: Tensor, weight: float, form: Tensor | float = 0.0) -> Tensor:
    """`outcome + weight * tool + form`, [N] float64.

    Args:
        outcome: [N], what the environment gave.
        tool: [N], see `tool_call_reward`.
        weight: mu(t), see `palaestra.training.curriculum.tool_call_weight`.
        form: [N] or a number: the penalty of malformed actions, at most 0.
    """
    return outcome.double() + weight * tool + form
