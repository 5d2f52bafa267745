"""Statistics of whole next-token distributions, chunk by chunk from hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from palaestra.training.batch import Allowed
from palaestra.training.curve import Curve
from palaestra.training.seams import Statistic

CHUNK = 128
"""Rows whose logits are held at once."""


def distribution_statistics(
    statistics: Sequence[Statistic],
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    curve: Curve,
    allowed: Allowed | None = None,
    bias: Tensor | None = None,
) -> dict[str, Tensor]:
    """Each statistic of every token, [N] float32 by name; where gradients are on, with gradient. Chunks are computed
    again in the backward pass.

    Args:
        statistics: what to compute.
        hidden: [N, D], as in `logprob_entropy`, and so are the others.
        weight: [V, D].
        labels: [N] int64.
        curve: from head outputs to logits.
        allowed: one entry per row; an empty one allows every token.
        bias: [V].
    """
    if not statistics:
        return {}

    def chunk(part: Tensor, taken: Tensor, place: Tensor) -> Tensor:
        logits = _logits(part, weight, bias, curve)
        if allowed is not None:
            logits = logits.masked_fill(_forbidden(allowed, place, logits.shape[1]), -torch.inf)
        return torch.stack([statistic.function(logits, taken) for statistic in statistics])

    places = torch.split(torch.arange(len(labels), device=labels.device), CHUNK)
    rows = [checkpoint(chunk, hidden[place], labels[place], place, use_reentrant=False) for place in places]
    columns = torch.cat(rows, 1) if rows else hidden.new_zeros(len(statistics), 0)
    return {statistic.name: column for statistic, column in zip(statistics, columns, strict=True)}


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, curve: Curve) -> Tensor:
    """[c, V] float32 (float64 where the inputs are)."""
    kind = torch.promote_types(hidden.dtype, torch.float32)
    raw = hidden.to(kind) @ weight.to(kind).T
    return curve.on(raw if bias is None else raw + bias.to(kind))


def _forbidden(allowed: Allowed, place: Tensor, vocabulary: int) -> Tensor:
    """[c, V] bool: tokens that each row's entry leaves out."""
    starts, counts = allowed.offsets[place], allowed.offsets[place + 1] - allowed.offsets[place]
    row = torch.repeat_interleave(torch.arange(len(place), device=place.device), counts)
    within = torch.arange(len(row), device=place.device) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    forbidden = (counts > 0)[:, None].repeat(1, vocabulary)
    forbidden[row, allowed.ids[starts[row] + within]] = False
    return forbidden
