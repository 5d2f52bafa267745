"""SPEAR's self-imitation: good episodes of the last iterations are trained once more, ever more of it (Qin et al. 2025,
arXiv 2509.22601).

    A~_i = R_i - P50 of the mean returns of recent groups; replayed if A_i > 0 and A~_i > 0        (6)
    loss = max(-A~ r, -A~ clip(r, 1 - clip_low, 1 + clip_high)),  r = exp(lp - lp when played)     (9)
    L = L_on + coef gamma(t) agg(c loss),  c = 0 on tokens that Clip-Cov picks among the replayed  (8), (10), (12)
    gamma(t) = (1 - cos(pi t / warmup)) / 2     for t <= warmup, then 1; t: iteration, from 0      (11)

`agg` is the recipe's aggregation. With a step-level advantage below it (GiGPO) only the outcome's part is replayed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.config import Recipe
from palaestra.training.baseline import BaselineBuffer
from palaestra.training.batch import Batch
from palaestra.training.curriculum import imitation_weight
from palaestra.training.imitation import ImitationOptions, recalibrated
from palaestra.training.past import Past
from palaestra.training.plugin import Plugin
from palaestra.training.plugins.clip_cov import ClipCov
from palaestra.training.plugins.kl_cov import KLCov
from palaestra.training.plugins.tool_reward import ToolReward, tool_reward_of
from palaestra.training.policy_loss import Bounds
from palaestra.training.replay import ReplayBuffer
from palaestra.training.replayed_loss import ReplayedLoss, ages
from palaestra.training.scope import budget_of
from palaestra.training.seams import NOTHING, Extra, Moment, Need, Parts
from palaestra.training.stored import Stored, put
from palaestra.training.terms import constant_of

Settings = ImitationOptions


@dataclass(frozen=True, slots=True)
class SelfImitation:
    """The replay."""

    settings: Settings
    loss: ReplayedLoss
    past: Past
    divide: bool = False
    tool: ToolReward | None = None
    """What to take out of returns."""
    requires: frozenset[Need] = NOTHING

    def __call__(self, batch: Batch, moment: Moment, steps: int) -> Sequence[Extra | None]:
        """A part for each step, empty where there is nothing to replay; a step of its own if there is none."""
        weight = self.settings.coef * imitation_weight(moment.iteration, self.settings.warmup)
        self.past.take_in(batch if self.tool is None else batch.rewarded(-self.tool(batch, moment)), moment)
        kept, p50 = len(self.past.episodes.entries), self.past.means.p50()
        chosen = [] if p50 is None or not weight else self._chosen(p50, moment)
        log = {"weight": weight, "p50": p50 or 0.0, "buffer": float(kept), "replayed": float(len(chosen))}
        log["age"] = ages(chosen, moment.iteration)
        extras = []
        count = max(1, steps)
        for part in (chosen[start::count] for start in range(count)):
            rows = put(part, self._again(part, p50 or 0.0), temperature=batch.temperature)
            extras.append(self.loss(rows, weight, log, moment))
        return [*[None] * steps, *extras] if self.settings.separate_steps else extras

    def _chosen(self, p50: float, moment: Moment) -> list[Stored]:
        options, episodes, now = self.settings, self.past.episodes, moment.iteration
        bar, count = -math.inf if options.weight_decay else p50, options.replayed
        if options.burst:
            good = len(episodes.good(bar, now, strict=options.strict))
            if good <= 1.5 * options.buffer:
                return []
            count = 2 ** int(math.log2(options.buffer))
        chosen = episodes.select(bar, now, count, moment.seed, strict=options.strict)
        if options.burst:
            episodes.clear()
        return chosen

    def _again(self, part: Sequence[Stored], p50: float) -> Tensor:
        """[N] float64: advantages now."""
        if self.settings.weight_decay:
            return self.settings.weight_decay * torch.tensor([each.advantage for each in part], dtype=torch.float64)
        std = (self.past.stds.p50() or None) if self.divide else None
        return recalibrated(torch.tensor([each.reward for each in part], dtype=torch.float64), p50, std)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """The replay and its memory."""
    if not settings.coef:
        return Parts()
    base, budget = recipe.algorithm, budget_of(recipe, settings.scope)
    bounds = Bounds(settings.clip_low, settings.clip_high, math.inf)
    clip = ClipCov(settings.rate, settings.low, settings.high, bounds, "clip", budget, "clip_cov of replayed")
    aggregation, constant = base.aggregation, constant_of(recipe, base.aggregation)
    hold = KLCov(settings.rate, budget)
    loss = ReplayedLoss(settings.loss, clip, hold, settings.kl_coeff, settings.entropy_coeff, aggregation, constant)
    size = None if settings.burst else settings.buffer
    means, stds = BaselineBuffer(settings.baseline), BaselineBuffer(settings.baseline)
    past = Past(means, stds, ReplayBuffer(size, settings.tolerate))
    divide = base.normalise == "std" if settings.std is None else settings.std
    tool = tool_reward_of(recipe) if settings.outcome_only else None
    return Parts(replays=(SelfImitation(settings, loss, past, divide, tool),), trackers={"self_imitation": past})


PLUGIN = Plugin(
    name="self_imitation",
    summary="long episodes rarely go well, and one update each wastes those that do: they are trained again",
    source="Qin et al. 2025, arXiv 2509.22601",
    settings=Settings,
    build=build,
    neutral={"coef": 0.0},
)
