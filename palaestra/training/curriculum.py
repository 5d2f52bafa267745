"""SPEAR's two schedules (Qin et al. 2025, arXiv 2509.22601): explore with tools first, imitate own successes later."""

from __future__ import annotations

import math
from typing import Literal

ToolSchedule = Literal["none", "constant", "cosine"]


def tool_call_weight(step: int, decay: int, schedule: ToolSchedule = "cosine") -> float:
    """mu(t): the weight of the tool-call reward, in [0, 1].

    Args:
        step: iteration, from 0.
        decay: `cosine` falls from 1 at step 0 to 0 at this step and stays there.
        schedule: `constant` is 1, `none` is 0.
    """
    if schedule == "cosine":
        return 0.0 if step >= decay else (math.cos(math.pi * step / decay) + 1) / 2
    return 1.0 if schedule == "constant" else 0.0


def imitation_weight(step: int, warmup: int) -> float:
    """gamma(t): the weight of the self-imitation loss, from 0 at step 0 to 1 at step `warmup` and beyond."""
    return 1.0 if step >= warmup else (1 - math.cos(math.pi * step / warmup)) / 2
