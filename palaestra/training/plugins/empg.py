"""EMPG: entropy-modulated policy gradients (Wang et al., arXiv 2509.09265), on GRPO's or any other advantage.

A turn's advantage grows where the policy was sure of itself, shrinks where it was not, and gets a bonus where the next
turn is a clear one. With `H_t` the mean old-policy entropy of turn `t`, over all turns `S` of the iteration:

    Hn_t = (H_t - min H) / (max H - min H + eps)                    (2)
    g_t  = exp(-k Hn_t) / (mean exp(-k Hn) + eps_g)                 (3)  mean 1: the size of the whole step is kept
    A'_t = A_t g_t + zeta exp(-k' Hn_next)                          (6)  no bonus on the last turn of an episode
    A''_t = A'_t - mean A'                                          (7)

A group without signal has `A = 0`, but (7) would still move its turns by `bonus - mean`. They are put back to 0 after
(7) and count in all means; `uniform_groups: keep` is the formula as printed, and the filter `uniform_groups` takes them
out before (2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat
from palaestra.training.batch import Batch
from palaestra.training.numbering import number
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Moment, Need, Parts, Shaped

Center = Literal["step", "token", "none"]


class Settings(Config, frozen=True, kw_only=True):
    """Defaults: the published listing, but `zeta` from the one independent study."""

    k: NonNegativeFloat = 1.0
    """Sharpness of the scaling; 0 for none."""
    k_clarity: NonNegativeFloat = 1.0
    """k', sharpness of the bonus. `k_f` in the listing."""
    zeta: NonNegativeFloat = 0.05
    """Size of the bonus, for advantages of order 1; 0 for none. 0.1 in the listing."""
    center: Center = "step"
    """What (7) subtracts: the mean over turns, over tokens, or nothing."""
    percentile: Annotated[float, msgspec.Meta(ge=0.0, lt=0.5)] = 0.0
    """Instead of minimum and maximum in (2), this quantile and the opposite one, clipped to [0, 1]: 0.01 keeps one odd
    turn from deciding the scale of all. 0 is the paper's."""
    uniform_groups: Literal["zero", "keep"] = "zero"
    """Turns of groups without any advantage: 0 after (7), or as (7) leaves them."""
    eps: NonNegativeFloat = 1e-8
    """Of (2)."""
    eps_g: NonNegativeFloat = 1e-8
    """Of (3): the listing's. 0 is the paper's formula."""


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns with policy tokens of an iteration, those of a trajectory after each other, in time order."""

    key: Tensor
    """[S, 2] int64: trajectory and turn."""
    owner: Tensor
    """[P] int64: turn of each policy token."""
    size: Tensor
    """[S] int64: its tokens."""
    following: Tensor
    """[S] int64: next turn of the trajectory, -1 for the last one. Turn numbers may have gaps."""

    @classmethod
    def of(cls, mask: Tensor, step_id: Tensor, traj: Tensor) -> Turns:
        """Of [B, T] mask and turns, and [B] trajectories."""
        row, _ = mask.nonzero(as_tuple=True)
        key, owner, size = number(torch.stack((traj[row], step_id[mask]), 1))
        following = torch.full_like(size, -1)
        same = key[1:, 0] == key[:-1, 0]
        following[:-1][same] = torch.arange(len(key))[1:][same]
        return cls(key, owner, size, following)

    def mean(self, values: Tensor) -> Tensor:
        """[S] float64: of a value per policy token [P]."""
        total = torch.zeros(len(self.size), dtype=torch.float64).index_add(0, self.owner, values.double())
        return total / self.size


@dataclass(frozen=True, slots=True)
class Modulation:
    """EMPG's quantities, one per turn [S] float64, and the advantages that follow [P] float64."""

    turns: Turns
    entropy: Tensor
    normalised: Tensor
    scale: Tensor
    """g."""
    clarity: Tensor
    """f = exp(-k' Hn)."""
    bonus: Tensor
    """zeta times the next turn's clarity."""
    modulated: Tensor
    """(6); the mean over its tokens, should the advantage differ within a turn."""
    shift: float
    """What (7) subtracts."""
    tokens: Tensor
    """(7) on the policy tokens, in row-major order."""


def modulate(
    advantage: Tensor, entropy: Tensor, mask: Tensor, step_id: Tensor, traj: Tensor, options: Settings | None = None
) -> Modulation:
    """Equations (1) to (8); nothing carries gradient. Zero-variance groups are as (7) leaves them.

    Args:
        advantage: [B, T].
        entropy: [B, T], nats, of the policy before the update.
        mask: [B, T] bool: tokens that the policy sampled; nothing outside is read.
        step_id: [B, T] int64.
        traj: [B] int64.
        options: default, `Settings()`.
    """
    options = options or Settings()
    turns = Turns.of(mask, step_id, traj)
    gain = advantage.detach()[mask].double()
    mean = turns.mean(entropy.detach()[mask])
    normalised = _normalised(mean, options)
    raw = (-options.k * normalised).exp()
    scale = raw / (_mean(raw) + options.eps_g)
    clarity = (-options.k_clarity * normalised).exp()
    bonus = torch.where(turns.following >= 0, options.zeta * clarity[turns.following], 0.0)
    tokens = gain * scale[turns.owner] + bonus[turns.owner]
    modulated = turns.mean(tokens)
    shift = {"step": _mean(modulated), "token": _mean(tokens), "none": 0.0}[options.center]
    return Modulation(turns, mean, normalised, scale, clarity, bonus, modulated, shift, tokens - shift)


@dataclass(frozen=True, slots=True)
class EntropyModulation:
    """EMPG as a shaper; a shift by (7), changed signs and what last turns get are logged."""

    options: Settings
    requires: frozenset[Need] = frozenset({"old_entropy", "scored"})

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """The modulated advantages."""
        assert batch.advantage is not None
        assert batch.old_entropy is not None
        mask, options = batch.trained, self.options
        before = batch.advantage[mask].double()
        result = modulate(batch.advantage, batch.old_entropy, mask, batch.step_id, batch.traj, options)
        tokens = result.tokens
        if options.uniform_groups == "zero":
            group = batch.group[mask.nonzero()[:, 0]]
            tokens = torch.where(torch.isin(group, group[before != 0]), tokens, 0.0)
        last = (result.turns.following < 0)[result.turns.owner]
        log = {
            "empg_shift": result.shift,
            "empg_flipped": _share((before * tokens < 0), before != 0),
            "empg_last_turns": _mean(tokens[last]),
        }
        return Shaped(torch.zeros(batch.shape).masked_scatter(mask, tokens.float()), log)


def _normalised(entropy: Tensor, options: Settings) -> Tensor:
    if not len(entropy):
        return entropy
    low, high = entropy.quantile(options.percentile), entropy.quantile(1 - options.percentile)
    result: Tensor = (entropy - low) / (high - low + options.eps)
    return result.clamp(0, 1)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0


def _share(chosen: Tensor, among: Tensor) -> float:
    return float((chosen & among).sum()) / max(1, int(among.sum()))


PLUGIN = Plugin(
    name="empg",
    summary="steps the policy is sure of get small updates, uncertain ones large and noisy updates",
    source="Wang et al. 2025, arXiv 2509.09265",
    settings=Settings,
    build=lambda settings, recipe: Parts(shapers=(EntropyModulation(settings),)),
    neutral={"k": 0.0, "zeta": 0.0, "center": "none", "eps_g": 0.0},
)
