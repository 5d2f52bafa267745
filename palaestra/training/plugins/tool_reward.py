"""SPEAR's reward for calling tools, which a schedule fades out (Qin et al. 2025, arXiv 2509.22601).

    R = R_outcome + mu(t) R_tool + R_format                                                   (1)
    R_tool = min(cap, per_call * n)         n: the agent's messages that call a tool          (2)
    mu(t) = (cos(pi t / decay) + 1) / 2     for t <= decay, then 0; t: iteration, from 0      (3)

`R_format` is `algorithm.invalid_penalty`. In a text environment an action *is* the call: each counts unless refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat, Positive, Recipe, convert
from palaestra.training.batch import Batch
from palaestra.training.curriculum import ToolSchedule, tool_call_weight
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, Moment, Need, Parts, Shaped
from palaestra.training.tool_reward import tool_call_reward
from palaestra.trajectories.record import StepRecord

Count = Literal["actions", "calls", "turns"]


class Settings(Config, frozen=True, kw_only=True):
    """What is rewarded, and until when."""

    schedule: ToolSchedule = "cosine"
    """mu: `cosine` fades out, `constant` is 1, `none` switches the reward off."""
    decay: Positive = 200
    """Iteration at which `cosine` reaches 0."""
    count: Count = "actions"
    """What a call is: an action that the environment did not refuse; a step with the outcome of a tool (`calls`), for
    environments that record them; or, as in the released code for agents, every turn, which rewards long episodes."""
    per_call: NonNegativeFloat = 0.1
    """Reward of each call."""
    cap: NonNegativeFloat = 1.0
    """The most that calls give."""
    solved_flag: bool = False
    """The variant for Qwen3: 1 for any call where the outcome is positive, so that solved tasks give no reason to call
    more often."""


def called(step: StepRecord, count: Count) -> bool:
    """Whether a step counts as a call."""
    return count == "turns" or (step.tool is not None if count == "calls" else not step.invalid)


@dataclass(frozen=True, slots=True)
class ToolReward:
    """The reward; and a shaper that leaves advantages alone, for the log."""

    settings: Settings
    requires: frozenset[Need] = NOTHING

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """`mu(t) R_tool`, [N] float64."""
        options = self.settings
        return tool_call_weight(moment.iteration, options.decay, options.schedule) * self.plain(batch)

    def plain(self, batch: Batch) -> Tensor:
        """`R_tool`, [N] float64."""
        assert batch.episodes is not None
        options, episodes = self.settings, batch.episodes
        calls = torch.tensor([sum(called(s, options.count) for s in each.steps) for each in episodes])
        outcome = torch.tensor([each.total_reward for each in episodes], dtype=torch.float64)
        flagged = outcome if options.solved_flag else None
        return tool_call_reward(calls, outcome=flagged, per_call=options.per_call, cap=options.cap)


@dataclass(frozen=True, slots=True)
class Report:
    """Logs mu and the mean of `R_tool`."""

    reward: ToolReward
    requires: frozenset[Need] = NOTHING

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """The advantages as they are."""
        assert batch.advantage is not None
        options = self.reward.settings
        mu = tool_call_weight(moment.iteration, options.decay, options.schedule)
        return Shaped(batch.advantage, {"tool_weight": mu, "tool_reward": float(self.reward.plain(batch).mean())})


def tool_reward_of(recipe: Recipe) -> ToolReward | None:
    """That of a recipe; `None` without."""
    settings = convert(recipe.algorithm.settings.get(PLUGIN.name, {}), Settings)
    on = PLUGIN.name in recipe.algorithm.plugins and settings.schedule != "none"
    return ToolReward(settings) if on else None


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Nothing for schedule `none`."""
    if settings.schedule == "none":
        return Parts()
    reward = ToolReward(settings)
    return Parts(rewards=(reward,), shapers=(Report(reward),))


PLUGIN = Plugin(
    name="tool_reward",
    summary="an agent that does not act never finds out what acting is good for: calls pay off at first",
    source="Qin et al. 2025, arXiv 2509.22601",
    settings=Settings,
    build=build,
    neutral={"schedule": "none"},
)
