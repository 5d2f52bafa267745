"""Masks and measurements of logits, as they are before temperature: what our processors of either runner do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from palaestra.agents.engines.base import Cut
from palaestra.agents.engines.sampling import kept

CHUNK = 64
"""Rows that are measured at once, which bounds the memory it takes."""


def measure(
    logits: Tensor,
    rows: Sequence[int],
    temperatures: Sequence[float],
    allowed: Sequence[list[int] | None],
    cuts: Sequence[Cut | None],
) -> Tensor:
    """Mask in `logits` what each row forbids, and measure what is left.

    Args:
        logits: [R, V] float32, changed in place where a row has a constraint or a cut; not otherwise.
        rows: The rows that are ours.
        temperatures: Per such row; 0 is measured at temperature 1.
        allowed: Per such row, the ids that may come next; `None` for all.
        cuts: Per such row, which of those may be drawn; `None` for all.

    Returns:
        [len(rows), 2] float32: the entropy (nats) of the distribution over what is allowed, and the log of the share
        that the cut leaves of it (0 without a cut): log-prob under the cut plus that is log-prob without it.
    """
    for row, ids in zip(rows, allowed, strict=True):
        if ids is not None:
            _forbid_all_but(logits[row], ids)
    parts = [
        _measured(logits, rows[k : k + CHUNK], temperatures[k : k + CHUNK], cuts[k : k + CHUNK])
        for k in range(0, len(rows), CHUNK)
    ]
    return torch.cat(parts) if parts else logits.new_zeros(0, 2)


def _forbid_all_but(row: Tensor, ids: list[int]) -> None:
    index = torch.tensor(ids, device=row.device)
    values = row[index]
    row.fill_(float("-inf"))
    row[index] = values


def _measured(logits: Tensor, rows: Sequence[int], temperatures: Sequence[float], cuts: Sequence[Cut | None]) -> Tensor:
    whole = len(rows) == len(logits) and list(rows) == list(range(len(rows)))
    own = logits if whole else logits[list(rows)]
    if any(t not in (0.0, 1.0) for t in temperatures):
        own = own / own.new_tensor([t or 1.0 for t in temperatures])[:, None]
    p = own.softmax(-1, dtype=torch.float32)
    entropy = torch.special.entr(p).sum(-1, dtype=torch.float64)
    share = torch.zeros_like(entropy)
    if any(cuts):
        stays = kept(p.double(), cuts)
        share = torch.where(stays, p, 0).sum(-1, dtype=torch.float64).log()
        _apply_cuts(logits, rows, cuts, stays)
    return torch.stack([entropy, share], 1).float()


def _apply_cuts(logits: Tensor, rows: Sequence[int], cuts: Sequence[Cut | None], stays: Tensor) -> None:
    for k, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
        if cut is not None:
            logits[row].masked_fill_(~stays[k], float("-inf"))
