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

import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.modulation import ModulationOptions, mean, modulate
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Moment, Need, Parts, Shaped

Settings = ModulationOptions


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
            "empg_last_turns": mean(tokens[last]),
        }
        return Shaped(torch.zeros(batch.shape).masked_scatter(mask, tokens.float()), log)


def _share(chosen: Tensor, among: Tensor) -> float:
    return float((chosen & among).sum()) / max(1, int(among.sum()))


PLUGIN = Plugin(
    name="empg",
    summary="steps the policy is sure of get small updates, uncertain ones large and noisy updates",
    source="Wang et al. 2025, arXiv 2509.09265",
    settings=ModulationOptions,
    build=lambda settings, recipe: Parts(shapers=(EntropyModulation(settings),)),
    neutral={"k": 0.0, "zeta": 0.0, "center": "none", "eps_g": 0.0},
)
