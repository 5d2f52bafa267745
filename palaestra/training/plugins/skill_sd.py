"""Skill-SD (arXiv 2604.10674): the policy is its own teacher, once it has read how such a task was solved before.

L = L_RL + lam * mean( rho (exp(-l) - 1 + l) ),   l = lp - teacher,   rho = exp(lp - old)

`teacher`: the weights before the update, given the skill and then the same episode; `lp`, `old`: without the skill.
Skills are summaries of solved episodes; each group's is chosen by its upper confidence bound (`training.skills`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from palaestra.config import Config, NonNegativeFloat, Positive, Recipe
from palaestra.training.batch import Batch
from palaestra.training.kl import LOG_RATIO_LIMIT
from palaestra.training.plugin import Plugin
from palaestra.training.seams import BoundTerm, Moment, Need, Parts, Tokens, Values
from palaestra.training.skill_teacher import ON, TEACHER, SkillTeacher
from palaestra.training.skills import SkillBank, actions_of


class Settings(Config, frozen=True, kw_only=True):
    """How strongly, and what a skill is."""

    lam: NonNegativeFloat = 0.001
    """Weight of the term; 0.001 in the paper."""
    explore: NonNegativeFloat = 1.0
    """Constant c of the upper confidence bound; not established by the source."""
    by: Literal["kind", "task"] = "kind"
    """Skills are shared among tasks of a kind, or kept for each task."""
    size: Positive = 8
    """Most skills of a kind; beyond, the worst one makes room."""
    template: str = "A task like this one was solved by these actions: {actions}"
    """The text of a skill."""
    actions: Positive = 30
    """Most actions that a skill names."""
    aggregation: Literal["token-mean", "seq-mean-token-mean", "traj-turn-token"] = "token-mean"
    """How the term's tokens become one number."""


@dataclass(frozen=True, slots=True)
class SkillLoss:
    """The term."""

    settings: Settings
    bank: SkillBank
    requires: frozenset[Need] = frozenset({"old_logprob"})
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm:
        """The same at every moment."""
        log = {"skills": float(sum(map(len, self.bank.skills.values())))}
        return BoundTerm("skill_sd", self.settings.lam, self.settings.aggregation, skill_values, log=log)


def skill_values(tokens: Tokens) -> Values:
    """`rho (exp(-l) - 1 + l)` where there is a skill, else 0; exponents are clipped as everywhere."""
    on = tokens.old_extra[ON] > 0
    gap = (tokens.logprob - tokens.old_extra[TEACHER].detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = (tokens.logprob - tokens.old_logprob.detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    return Values(torch.where(on, ratio * ((-gap).exp() - 1 + gap), 0.0), {"skilled_fraction": on})


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Nothing with `lam` 0."""
    if settings.lam == 0:
        return Parts()
    bank = SkillBank(settings.size, settings.explore)
    summarise = partial(actions_of, template=settings.template, most=settings.actions)
    teacher = SkillTeacher(settings.by, bank, summarise)
    return Parts(
        terms=(SkillLoss(settings, bank),),
        providers=(teacher,),
        attachments=(teacher,),
        trackers={"skill_sd": teacher},
    )


PLUGIN = Plugin(
    name="skill_sd",
    summary="what solved a task is forgotten with its gradient step; as advice it can teach the policy itself",
    source="Skill-SD 2026, arXiv 2604.10674",
    settings=Settings,
    build=build,
    neutral={"lam": 0.0},
)
