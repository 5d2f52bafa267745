"""KDRL (arXiv 2506.02208): the reward and a teacher at once.

loss = L_RL + beta_k * mean( (lp - teacher)^2 / 2 )          k2, whose gradient is that of KL(policy || teacher)
beta_k = max(beta - delta * iteration, floor)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palaestra.config import Config, NonNegativeFloat, Recipe
from palaestra.training.aggregate import Mode
from palaestra.training.batch import Batch
from palaestra.training.kl import kl_estimate
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, BoundTerm, Moment, Need, Parts, Tokens, Values
from palaestra.training.teachers import Teachers, paths_of
from palaestra.training.terms import constant_of

COLUMN = "kdrl_teacher"


class Settings(Config, frozen=True, kw_only=True):
    """Who teaches, and how strongly. The paper's constants are not established; these are provisional."""

    teacher: str = ""
    """As `algorithm.settings.opd.teacher`."""
    teachers: dict[str, str] = {}
    """One for each kind of task, instead of `teacher` or beside it."""
    beta: NonNegativeFloat = 5e-3
    """Weight in the first iteration; with 0 and `floor` 0 there is no teacher."""
    delta: NonNegativeFloat = 5e-5
    """What it loses in each iteration."""
    floor: NonNegativeFloat = 1e-3
    """Below which it does not fall; more than `beta` means `beta`."""
    skip_solved: bool = False
    """Episodes that were solved are left to the reward."""


@dataclass(frozen=True, slots=True)
class TeacherKL:
    """The teacher's part of the loss."""

    settings: Settings
    aggregation: Mode
    constant: float | None = None
    requires: frozenset[Need] = NOTHING
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """With the weight of the iteration; `None` once it is 0."""
        options = self.settings
        floor = min(options.floor, options.beta)
        beta = max(options.beta - options.delta * moment.iteration, floor)
        if beta == 0:
            return None
        on = ~batch.succeeded if options.skip_solved else torch.ones(len(batch.ids), dtype=torch.bool)
        return BoundTerm(
            name="teacher_k2",
            coefficient=beta,
            aggregation=self.aggregation,
            value=lambda tokens: _values(tokens, on),
            constant=self.constant,
            log={"teacher_beta": beta},
        )


def _values(tokens: Tokens, on: torch.Tensor) -> Values:
    assert tokens.row is not None
    value = kl_estimate(tokens.logprob, tokens.old_extra[COLUMN], "k2")
    return Values(torch.where(on.to(tokens.row.device)[tokens.row], value, 0.0))


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Nothing with `beta` 0."""
    if settings.beta == 0:
        return Parts()
    paths = paths_of(settings.teacher, settings.teachers)
    teachers = Teachers(COLUMN, paths, "algorithm.settings.kdrl.teacher")
    mode = recipe.algorithm.aggregation
    term = TeacherKL(settings, mode, constant_of(recipe, mode))
    return Parts(terms=(term,), providers=(teachers,), attachments=(teachers,))


PLUGIN = Plugin(
    name="kdrl",
    summary="rewards alone are slow, a teacher alone is a ceiling",
    source="KDRL 2025, arXiv 2506.02208",
    settings=Settings,
    build=build,
    neutral={"beta": 0.0},
)
