"""Log-probs and entropies of constrained tokens: a distribution over the few ids that were allowed.

Only the head rows of the allowed ids are read, and only they receive a gradient, so the cost follows the number of
choices and not the vocabulary. A token whose set has one id was forced: log-prob 0, entropy 0, no gradient, no work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palaestra.errors import TrainingError
from palaestra.training.batch import Allowed
from palaestra.training.curve import PLAIN, Curve

CHUNK = 32768
"""Pairs of (token, allowed id) whose [pairs, D] products are held at once."""


def ragged_logprob_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    allowed: Allowed,
    *,
    curve: Curve = PLAIN,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-prob of `labels` [N] and entropy [N] (nats) of the softmax over each row's allowed ids (none empty).

    Arguments, dtypes and errors are those of `logprob_entropy`, with `curve` for temperature, scale and soft cap.
    """
    ids, offsets = allowed.ids.to(hidden.device), allowed.offsets.to(hidden.device)
    counts = offsets.diff()
    row = torch.repeat_interleave(torch.arange(len(labels), device=hidden.device), counts)
    chosen = _chosen(ids, row, labels)
    open_pair = (counts > 1)[row]
    pairs, row, chosen = ids[open_pair], row[open_pair], chosen[open_pair]
    logprob, entropy = _RaggedHead.apply(hidden, weight, bias, pairs, row, chosen, curve)  # type: ignore[no-untyped-call]
    return logprob, entropy


def _chosen(ids: Tensor, row: Tensor, labels: Tensor) -> Tensor:
    """Which pairs are their row's label, [M] bool; every row must have exactly one."""
    chosen = ids == labels[row]
    hits = torch.zeros_like(labels).index_add_(0, row, chosen.to(labels.dtype))
    if not bool((hits == 1).all()):
        bad = int((hits != 1).nonzero()[0, 0])
        raise TrainingError(f"token {bad} (id {int(labels[bad])}) is not in its own set of allowed ids exactly once")
    return chosen


class _RaggedHead(torch.autograd.Function):
    """Pairs (row, id) in row order; rows without pairs are forced."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        row: Tensor,
        chosen: Tensor,
        curve: Curve,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        dtype = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
        z = curve.apply_(_logits(hidden, weight, bias, ids, row, dtype).div_(curve.divisor))
        bend = curve.slope(z)
        n = len(hidden)
        top = z.new_zeros(n).scatter_reduce_(0, row, z, "amax", include_self=False)
        z -= top[row]
        total = _sum_rows(z.exp(), row, n)
        has_pairs = total > 0
        log_total = torch.where(has_pairs, total, 1.0).log()
        z -= log_total[row]
        p = z.exp()
        entropy = _sum_rows(-p * z.clamp(min=-1e30), row, n).clamp_(min=0)
        logprob = _sum_rows(torch.where(chosen, z, 0.0), row, n).clamp_(max=0)
        _check_finite(logprob, entropy)
        ctx.save_for_backward(hidden, weight, bias, ids, row, chosen, z, entropy, bend)
        ctx.divisor = curve.divisor
        return logprob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None) -> tuple[Any, ...]:
        hidden, weight, bias, ids, row, chosen, logp, entropy, bend = ctx.saved_tensors
        if grad_logprob is None and grad_entropy is None:
            return (None,) * 7
        dz = torch.zeros_like(logp)
        p = logp.exp()
        if grad_logprob is not None:
            dz += grad_logprob[row] * (chosen.to(p.dtype) - p)
        if grad_entropy is not None:
            dz -= grad_entropy[row] * p * (logp.clamp(min=-1e30) + entropy[row])
        if bend is not None:
            dz *= bend
        dz /= ctx.divisor
        grads = _backward(hidden, weight, ids, row, dz, ctx.needs_input_grad)
        grad_bias = None
        if ctx.needs_input_grad[2]:
            grad_bias = dz.new_zeros(len(weight)).index_add_(0, ids, dz).to(bias.dtype)
        return grads[0], grads[1], grad_bias, None, None, None, None


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK):
        yield slice(start, min(start + CHUNK, n))


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, row: Tensor, dtype: torch.dtype
) -> Tensor:
    z = torch.empty(len(ids), dtype=dtype, device=hidden.device)
    for part in _chunks(len(ids)):
        torch.linalg.vecdot(hidden[row[part]].to(dtype), weight[ids[part]].to(dtype), out=z[part])
    return z if bias is None else z.add_(bias.to(dtype)[ids])


def _sum_rows(x: Tensor, row: Tensor, n: int) -> Tensor:
    return x.new_zeros(n).index_add_(0, row, x)


def _check_finite(logprob: Tensor, entropy: Tensor) -> None:
    fine = torch.isfinite(logprob) & torch.isfinite(entropy)
    if not bool(fine.all()):
        bad = int((~fine).nonzero()[0, 0])
        raise TrainingError(
            f"log-prob or entropy of constrained token {bad} is not finite: "
            "the hidden states or the head have overflowed"
        )


def _backward(
    hidden: Tensor, weight: Tensor, ids: Tensor, row: Tensor, dz: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    grad_hidden = dz.new_zeros(hidden.shape) if wanted[0] else None
    grad_weight = dz.new_zeros(weight.shape) if wanted[1] else None
    for part in _chunks(len(ids)):
        scale = dz[part, None]
        if grad_hidden is not None:
            grad_hidden.index_add_(0, row[part], scale * weight[ids[part]])
        if grad_weight is not None:
            grad_weight.index_add_(0, ids[part], scale * hidden[row[part]])
    return (
        None if grad_hidden is None else grad_hidden.to(hidden.dtype),
        None if grad_weight is None else grad_weight.to(weight.dtype),
    )
