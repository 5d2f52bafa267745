"""Entropy of the nucleus, and which tokens of an episode are its most uncertain ones (SIREN, arXiv 2509.25133)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from palaestra.training.numbering import number


def nucleus_entropy(logits: Tensor, taken: Tensor, top_p: float, most: int, crossing: bool) -> Tensor:
    """[c]: entropy in nats of each row of `logits` [c, V] within its nucleus; with gradient."""
    whole = logits.log_softmax(-1)
    kept = whole > -math.inf
    if top_p < 1:
        whole = whole.topk(min(most, whole.shape[1])).values
        p = whole.detach().exp()
        reached = p.cumsum(-1)
        kept = ((reached - p if crossing else reached) < top_p) & (whole > -math.inf)
        kept[:, 0] = True
    size = whole.masked_fill(~kept, -math.inf).logsumexp(-1)
    inside = torch.where(kept, whole, 0.0)
    share = torch.where(kept, (inside - size[:, None]).exp(), 0.0)
    return size - (share * inside).sum(-1)


def selection(entropy: Tensor, traj: Tensor, quantile: float) -> Tensor:
    """[P] float64: each token's weight in `Hbar`, 0 for those not selected. Trajectories whose tokens are all alike
    have none above their quantile and do not count."""
    chosen = torch.ones_like(entropy, dtype=torch.bool)
    owner = number(traj).number
    if quantile:
        for each in torch.unique(owner):
            mine = owner == each
            chosen[mine] = entropy[mine] > entropy[mine].double().quantile(quantile)
    size = torch.zeros(len(owner) + 1, dtype=torch.float64, device=owner.device).index_add(0, owner, chosen.double())
    return torch.where(chosen, 1 / (size[owner].clamp(min=1) * (size > 0).sum().clamp(min=1)), 0.0)
