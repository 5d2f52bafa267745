"""On-policy distillation, and its extrapolation G-OPD (arXiv 2602.12125): every token gets its credit from a teacher.

A = -[ old - ref - lam (teacher - ref) ]        log-probs of the taken token, a constant

`lam` 1 is plain on-policy distillation, A = teacher - old, whatever the reference; above 1 the policy goes on in the
direction that leads from the reference to the teacher; 0 pulls back to the reference. Rewards play no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat, NonNegativeOrInfinite, Recipe
from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.plugins import mismatch
from palaestra.training.seams import NOTHING, Moment, Need, Parts, Shaped
from palaestra.training.teachers import ANY, Teachers, paths_of

TEACHER, BASE = "opd_teacher", "opd_base"
KEY = "algorithm.settings.opd"


class Settings(Config, frozen=True, kw_only=True):
    """Who teaches, and how far to go."""

    teacher: str = ""
    """The model that teaches: a directory, a run or a GGUF file with the policy's tokenizer. `train` wants one; a
    learner without a run takes the reference."""
    teachers: dict[str, str] = {}
    """One for each kind of task, instead of `teacher` or beside it."""
    lam: NonNegativeFloat = 1.25
    """1 goes to the teacher, more goes beyond; 1.25 in the paper."""
    base: str = ""
    """The reference: empty for the policy before training, or the teacher's model before its own training."""
    cap: NonNegativeOrInfinite = 5.0
    """Importance weights between engine and learner are cut off here, by the plug-in `mismatch`; 0 for none."""


@dataclass(frozen=True, slots=True)
class TeacherAdvantage:
    """Dense, token by token."""

    lam: float
    base: str = ""

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not trained."""
        assert batch.old_logprob is not None
        old = batch.old_logprob.double()
        target = self._target(batch)
        return torch.where(batch.trained, target - old, 0.0).float()

    def _target(self, batch: Batch) -> Tensor:
        """`ref + lam (teacher - ref)`: what the policy's log-probs are drawn to."""
        if self.lam == 1:
            return batch.extra[TEACHER].double()
        ref = batch.extra[BASE] if self.base else batch.ref_logprob
        assert ref is not None
        reference = ref.double()
        return reference if self.lam == 0 else reference + self.lam * (batch.extra[TEACHER].double() - reference)


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes nothing: it logs how far the policy is from its teacher."""

    requires: frozenset[Need] = NOTHING

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """`teacher_kl`: mean of `old - teacher`, the reverse KL."""
        assert batch.advantage is not None
        assert batch.old_logprob is not None
        if TEACHER not in batch.extra or not bool(batch.trained.any()):
            return Shaped(batch.advantage, {"teacher_kl": None})
        gap = (batch.old_logprob.double() - batch.extra[TEACHER].double())[batch.trained]
        return Shaped(batch.advantage, {"teacher_kl": float(gap.mean())})


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Raises:
    ConfigError: there are two corrections for the engine.
    """
    if settings.cap and "mismatch" in recipe.algorithm.plugins:
        raise ConfigError(f"algorithm.plugins: opd brings the weights of mismatch; leave that out, or set {KEY}.cap=0")
    needs: frozenset[Need] = frozenset({"old_logprob", "scored"})
    if settings.lam != 1 and not settings.base:
        needs |= {"ref_logprob"}
    paths = paths_of(settings.teacher, settings.teachers)
    teachers = Teachers(TEACHER, paths, f"{KEY}.teacher", needs)
    providers = (teachers,) if settings.lam else ()
    if settings.base and settings.lam != 1:
        providers = (*providers, Teachers(BASE, {ANY: settings.base}, f"{KEY}.base", needs))
    return Parts(
        advantage=TeacherAdvantage(settings.lam, settings.base),
        shapers=(Gap(needs),),
        gates=mismatch.build(mismatch.Settings(cap=settings.cap), recipe).gates,
        providers=providers,
        attachments=providers,
        own_credit=True,
    )


PLUGIN = Plugin(
    name="opd",
    summary="one reward an episode is little to learn from where a stronger model can judge every token",
    source="G-OPD 2026, arXiv 2602.12125",
    settings=Settings,
    build=build,
    neutral=None,
)
