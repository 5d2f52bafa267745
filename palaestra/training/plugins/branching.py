"""Rollouts that branch where the agent becomes less certain: AEPO's rollout half (Dong et al., arXiv 2510.14545).

    m = k sigmoid(beta (H_root - mean H_tool))                    of k rollouts begin at the prompt           (4), (5)
    P = (alpha + gamma (H_t - H_init)) (1 - min(1, rho l))        branch after a tool result with this        (6) to (9)

H are entropies at the beginning of what the agent says, l counts branches in a row. `palaestra.agents.tree` plays so,
on any environment, as all of them fork. What rollouts share is trained once, with the mean of their advantages.
ARPO (arXiv 2507.19849) is `rho: 0, begin: k/2`.
"""

from __future__ import annotations

from typing import Literal

from palaestra.agents.branching import BranchRule
from palaestra.agents.tree import TreePlanner
from palaestra.config import Config, NonNegative, NonNegativeFloat, Positive, Recipe
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Parts


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the constants of the released code, with the paper's probability."""

    begin: NonNegative = 0
    """Rollouts of a group that begin at the prompt, at most all: 6 of 12 and 8 of 16 in the released scripts. 0 lets
    the entropies of the first rollout decide."""
    beta: NonNegativeFloat = 0.5
    """Sensitivity of that; 0 takes half of the group."""
    rounding: Literal["code", "nearest"] = "code"
    """Of (5): down and one more, as in the released code; or to the nearest."""
    alpha: NonNegativeFloat = 0.5
    """Probability of a branch where entropy has not changed; `branch_probability` in the released code."""
    gamma: NonNegativeFloat = 0.2
    """Weight of the change of entropy; `entropy_weight` in the released code."""
    rho: NonNegativeFloat = 0.05
    """Penalty of each branch in a row: none is made after `1 / rho`. 0 is ARPO's rule."""
    decision: Literal["bernoulli", "paper", "code"] = "bernoulli"
    """With probability P; where P is above `threshold`, as in the paper; or by the released code's random score, whose
    penalty ends branching at half as many in a row."""
    threshold: NonNegativeFloat = 0.5
    """tau of the `paper` decision."""
    tokens: Positive = 20
    """N_tok: how many tokens at the beginning of a segment are measured."""
    lagged: bool = False
    """Decide by the segment before the tool result, as the released code does, and not by the one behind it."""
    credit: Literal["mean", "own"] = "mean"
    """Advantage of tokens that several rollouts share: the mean of theirs (ARPO's hard estimate), or that of the
    rollout in whose row they are trained, as a rule the one that sampled them."""


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The planner."""
    rule = BranchRule(settings.alpha, settings.gamma, settings.rho, settings.threshold, settings.decision)
    planner = TreePlanner(
        rule,
        begin=settings.begin or None,
        beta=settings.beta,
        rounding=settings.rounding,
        positions=settings.tokens,
        lagged=settings.lagged,
    )
    return Parts(planner=planner, own_credit=settings.credit == "own")


PLUGIN = Plugin(
    name="branching",
    summary="rollouts of a task resemble each other, and where the agent hesitates only one way is tried",
    source="Dong et al. 2025, arXiv 2510.14545",
    settings=Settings,
    build=build,
    neutral={"begin": 1_000_000},
)
