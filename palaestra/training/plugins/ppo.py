"""PPO with a critic (Schulman et al., arXiv 1707.06347): credit by generalised advantage estimation (arXiv 1506.02438).

    delta_k = r_k + gamma V_(k+1) - V_k          A_k = delta_k + gamma lambda A_(k+1)          R_k = A_k + V_k

A decision `k` is by default a turn, as in Turn-PPO (Li et al., arXiv 2512.17008), which trained agents more steadily
than tokens: a reward at the end of hundreds of tokens decays by lambda at each of them (VC-PPO, arXiv 2503.01491), and
what a half-written command is worth is hard to say. The equations are in `palaestra.training.gae` and `.critic`; groups
are not needed, `rollout.group_size` may be 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import torch

from palaestra.config import Config, Fraction, NonNegativeFloat, NonNegativeOrInfinite, PositiveFloat, Recipe
from palaestra.training.batch import Batch
from palaestra.training.critic import CriticPlan, Trunk, with_lam
from palaestra.training.gae import GaeAdvantage, Unit
from palaestra.training.plugin import Plugin
from palaestra.training.seams import NOTHING, Moment, Need, Parts, Shaped

DEFAULTS: dict[Unit, tuple[float, float]] = {"turn": (0.99, 0.9), "token": (1.0, 0.95)}
"""gamma and lambda: Turn-PPO's, and the usual ones of PPO on language models."""
FLAT = 1e-6
"""Advantages that differ by less are equal: their standard deviation is rounding."""


class Settings(Config, frozen=True, kw_only=True):
    """Credit, and the critic that it rests on."""

    unit: Unit = "turn"
    """What a decision is: a turn (one value for all of its tokens), or a token."""
    gamma: Fraction | None = None
    """Discount of one decision; null: 0.99 for turns, 1 for tokens."""
    lam: Fraction | None = None
    """0 trusts the critic, 1 the rewards; null: 0.9 for turns, 0.95 for tokens."""
    value_lam: Fraction | None = None
    """Lambda of the critic's targets; null: `lam`. VC-PPO has 1, and so targets without bias."""
    truncated: Literal["end", "bootstrap"] = "end"
    """An episode that a limit cut off: `end` counts nothing after it, right where the limit is part of the task;
    `bootstrap` takes its last value for what would have come (Pardo et al., arXiv 1712.00378)."""
    whiten: bool = True
    """Give the advantages of all policy tokens of an iteration mean 0 and standard deviation 1."""
    trunk: Trunk = "own"
    """What the value head reads: `own`, a copy of the policy's trunk that learns too; `frozen`, a copy that does not;
    `policy`, the policy's as it is, which costs no memory. The latter two train the head alone."""
    lr_ratio: PositiveFloat = 10.0
    """The critic's learning rate over `optimiser.lr`, on the same schedule: 1e-5 and 1e-6 in verl's recipes."""
    clip_value: NonNegativeOrInfinite = 0.2
    """How far a value may move from that at the beginning of the iteration and still be taught; scale it with the
    rewards, `.inf` for no clip."""
    value_coeff: NonNegativeFloat = 0.5
    """Of the squared error; the critic's gradient is clipped at `optimiser.grad_clip` by itself."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """`(A - mean) / std` over the policy tokens of an iteration, divisor n-1; equal advantages become 0."""

    requires: frozenset[Need] = NOTHING

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """Logs what it divided by."""
        assert batch.advantage is not None
        inside = batch.advantage[batch.trained].double()
        if len(inside) < 2 or float(inside.max() - inside.min()) <= FLAT:
            return Shaped(torch.zeros(batch.shape), {"advantage_std": 0.0})
        std = inside.std()
        white = (batch.advantage.double() - inside.mean()) / std
        return Shaped(torch.where(batch.trained, white, 0.0), {"advantage_std": float(std)})


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Credit, critic, and whitening."""
    gamma, lam = DEFAULTS[settings.unit]
    credit = GaeAdvantage(
        unit=settings.unit,
        gamma=gamma if settings.gamma is None else settings.gamma,
        lam=lam if settings.lam is None else settings.lam,
        bootstrap=settings.truncated == "bootstrap",
    )
    plan = CriticPlan(
        credit=with_lam(credit, settings.value_lam),
        optimiser=msgspec.structs.replace(recipe.optimiser, lr=recipe.optimiser.lr * settings.lr_ratio),
        trunk=settings.trunk,
        clip_value=settings.clip_value,
        coefficient=settings.value_coeff,
    )
    return Parts(advantage=credit, critic=plan, shapers=(Whitening(),) if settings.whiten else ())


PLUGIN = Plugin(
    name="ppo",
    summary="credit within an episode, and tasks that are played once only: a learned value instead of a group",
    source="Schulman et al. 2017, arXiv 1707.06347; turns: arXiv 2512.17008",
    settings=Settings,
    build=build,
    neutral=None,
)
