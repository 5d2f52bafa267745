"""Log-probs and exact entropies of chosen tokens from hidden states, tile by tile, with gradients through both.

The logits of a batch, [tokens, vocabulary], are the largest tensor of a training step. They are never held at once
here: one tile of `chunk` rows by `vocab_chunk` columns is computed, reduced to three numbers a row (maximum, sum of
exponentials, sum of exponentials times logits) and overwritten. The backward pass computes each tile again and turns it
in place into the gradient with respect to the logits,

    d logprob / d z = onehot(label) - p          d entropy / d z = -p (log p + entropy)

Where the model has a soft cap c on its logits, z = c tanh(y / c) / temperature, which has the slope 1 - tanh(y / c)^2.

Tokens of constrained completions touch only the head rows that were allowed (see `ragged_head.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palaestra.errors import TrainingError
from palaestra.training.batch import Allowed
from palaestra.training.curve import Curve
from palaestra.training.ragged_head import ragged_logprob_entropy
from palaestra.training.tiles import compiled, fold, product, slope

FLOOR = -1e30
"""Stands for a logit of minus infinity: `exp` of it is exactly 0, and 0 times it is 0 instead of NaN."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the logits are cut up."""

    rows: int
    columns: int
    fused: bool
    """By compiled functions."""


def logprob_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    vocab_chunk: int | None = None,
    fused: bool | None = None,
    allowed: Allowed | None = None,
    bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-prob of `labels` and entropy (nats, [N]) of softmax(cap(scale (hidden @ weight.T + bias)) / temperature).

    Args:
        hidden: [N, D], the model's last hidden state before each label; float32, float64 or bfloat16.
        weight: [V, D], the output head.
        labels: [N] int64, the tokens taken.
        temperature: the sampling temperature; above 0.
        chunk: rows of a tile; 256, with `fused` 4096.
        vocab_chunk: columns of a tile; 4096, with `fused` 16384. Neither size changes the result beyond rounding.
        fused: have torch compile what is done with a tile; by default on a GPU. Where all inputs are bfloat16, products
            are then of bfloat16, summed in float32.
        allowed: one entry per row. Where an entry is not empty, the distribution is renormalised over its ids, as the
            engine does; a single allowed id has log-prob 0, entropy 0 and no gradient.
        bias: [V]; an entry of minus infinity removes the token (but not under a soft cap).
        scale: of the logits, before cap and temperature; above 0.
        soft_cap: `cap(y) = soft_cap * tanh(y / soft_cap)`; `None`: no cap.

    Returns:
        `(logprob, entropy)` in float64 if an input is float64, else float32. The gradients with respect to hidden,
        weight and bias are exact; there is no second derivative.

    Raises:
        ValueError: shapes that do not fit, or a temperature, scale or soft cap that is not above 0.
        TrainingError: values that are not finite, or a label that its mask forbids.
    """
    _check(hidden, weight, labels, temperature, allowed)
    curve = Curve.of(temperature, scale, soft_cap)
    fused = hidden.is_cuda if fused is None else fused
    tiling = Tiling(chunk or (4096 if fused else 256), vocab_chunk or (16384 if fused else 4096), fused)
    if allowed is None:
        return _dense(hidden, weight, labels, curve, tiling, bias)
    counts = allowed.offsets.diff().to(hidden.device)
    if bool((counts > 0).all()):
        return ragged_logprob_entropy(hidden, weight, labels, allowed, curve=curve, bias=bias)
    free, bound = (counts == 0).nonzero()[:, 0], (counts > 0).nonzero()[:, 0]
    if len(bound) == 0:
        return _dense(hidden, weight, labels, curve, tiling, bias)
    parts = (
        _dense(hidden[free], weight, labels[free], curve, tiling, bias),
        ragged_logprob_entropy(hidden[bound], weight, labels[bound], _without_empty(allowed), curve=curve, bias=bias),
    )
    order = torch.cat((free, bound)).argsort()
    return torch.cat((parts[0][0], parts[1][0]))[order], torch.cat((parts[0][1], parts[1][1]))[order]


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float, allowed: Allowed | None) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or labels.shape != hidden.shape[:1]:
        raise ValueError(
            "expected hidden [N, D], weight [V, D] and labels [N]; got "
            f"{tuple(hidden.shape)}, {tuple(weight.shape)} and {tuple(labels.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0 to train at, got {temperature}")
    if allowed is not None and len(allowed.offsets) != len(labels) + 1:
        raise ValueError(f"allowed has {len(allowed.offsets) - 1} entries for {len(labels)} tokens")


def _without_empty(allowed: Allowed) -> Allowed:
    """The same sets without the empty entries (the flat ids are unchanged)."""
    keep = torch.cat((allowed.offsets.new_ones(1, dtype=torch.bool), allowed.offsets.diff() > 0))
    return Allowed(ids=allowed.ids, offsets=allowed.offsets[keep])


def _dense(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    curve: Curve,
    tiling: Tiling,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    inputs = (hidden, weight, bias, labels, curve, tiling)
    logprob, entropy = _DenseHead.apply(*inputs)  # type: ignore[no-untyped-call]
    return logprob, entropy


@dataclass(frozen=True, slots=True)
class _Head:
    """The scaled inputs of every tile, in the dtype of the computation."""

    hidden: Tensor
    """[N, D], already divided by the curve's divisor."""
    weight: Tensor
    """[V, D], in its own dtype: converted block by block."""
    bias: Tensor | None
    """[V], already divided by it too; minus infinity replaced by `FLOOR`."""
    labels: Tensor
    curve: Curve
    tiling: Tiling

    @classmethod
    def of(
        cls,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        curve: Curve,
        tiling: Tiling,
    ) -> _Head:
        dtype = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
        scaled = hidden.to(dtype) / curve.divisor if curve.divisor != 1.0 else hidden.to(dtype)
        if bias is not None:
            bias = (bias.to(dtype) / curve.divisor).clamp(min=FLOOR)
        if tiling.fused and hidden.dtype == weight.dtype == torch.bfloat16:
            scaled = scaled.to(torch.bfloat16)
        return cls(scaled, weight, bias, labels, curve, tiling)

    @property
    def wide(self) -> torch.dtype:
        """Of logits and sums."""
        return torch.promote_types(self.hidden.dtype, torch.float32)

    def columns(self) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of the vocabulary and their [width, D] weights."""
        for start in range(0, len(self.weight), self.tiling.columns):
            block = slice(start, min(start + self.tiling.columns, len(self.weight)))
            yield block, self.weight[block].to(self.hidden.dtype)

    def rows(self) -> Iterator[slice]:
        """Blocks of the rows."""
        for start in range(0, len(self.hidden), self.tiling.rows):
            yield slice(start, min(start + self.tiling.rows, len(self.hidden)))

    def buffer(self) -> Tensor:
        """Room for one tile."""
        if self.tiling.fused:  # its tiles come and go
            return self.hidden.new_empty(0)
        return self.hidden.new_empty(
            min(self.tiling.rows, len(self.hidden)) * min(self.tiling.columns, len(self.weight))
        )

    def tile(self, rows: slice, columns: slice, weight: Tensor, out: Tensor) -> Tensor:
        """Logits [rows, columns], written into `out` if that is not empty."""
        hidden = self.hidden[rows]
        if self.tiling.fused:
            logits = product(hidden, weight.T)
            return self.curve.apply_(logits if self.bias is None else logits.add_(self.bias[columns]))
        view = out[: len(hidden) * len(weight)].view(len(hidden), len(weight))
        torch.mm(hidden, weight.T, out=view)
        if self.bias is not None:
            view.add_(self.bias[columns])
        return self.curve.apply_(view)


class _DenseHead(torch.autograd.Function):
    """The whole vocabulary."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        curve: Curve,
        tiling: Tiling,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head.of(hidden, weight, bias, labels, curve, tiling)
            top, total, moment, taken = _reduce(head)
            log_total = total.log()
            logprob = (taken - top - log_total).clamp_(max=0)
            entropy = (log_total - moment / total).clamp_(min=0)
        _check_finite(logprob, entropy)
        ctx.save_for_backward(hidden, weight, bias, labels, top + log_total, entropy)
        ctx.sizes = curve, tiling
        return logprob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None) -> tuple[Any, ...]:
        hidden, weight, bias, labels, lse, entropy = ctx.saved_tensors
        none = (None,) * 6
        if grad_logprob is None and grad_entropy is None:
            return none
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head.of(hidden, weight, bias, labels, *ctx.sizes)
            slopes = _Slope.of(grad_logprob, grad_entropy, lse, entropy)
            grads = _backward(head, slopes, ctx.needs_input_grad[:3])
        scale = 1.0 / ctx.sizes[0].divisor
        return (
            None if grads[0] is None else grads[0].mul_(scale).to(hidden.dtype),
            None if grads[1] is None else grads[1].to(weight.dtype),
            None if grads[2] is None else grads[2].mul_(scale).to(bias.dtype),
            *none[3:],
        )


def _reduce(head: _Head) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per row: maximum m, sum exp(z - m), sum exp(z - m) (z - m), and the label's logit."""
    n = len(head.hidden)
    top = head.hidden.new_full((n,), FLOOR, dtype=head.wide)
    total, moment, taken = (head.hidden.new_zeros(n, dtype=head.wide) for _ in range(3))
    logits, powers = head.buffer(), head.buffer()
    for columns, weight in head.columns():
        for rows in head.rows():
            z = head.tile(rows, columns, weight, logits)
            _take_labels(z, head.labels[rows] - columns.start, taken[rows])
            if head.tiling.fused:
                top[rows], total[rows], moment[rows] = compiled(fold)(z, top[rows], total[rows], moment[rows])
            else:
                _merge(z, powers[: z.numel()].view_as(z), top[rows], total[rows], moment[rows])
    return top, total, moment, taken


def _take_labels(z: Tensor, position: Tensor, taken: Tensor) -> None:
    """Copy the logits of the labels that lie in this tile into `taken`."""
    found = z.gather(1, position.clamp(0, z.shape[1] - 1)[:, None])[:, 0]
    torch.where((position >= 0) & (position < z.shape[1]), found, taken, out=taken)


def _merge(z: Tensor, powers: Tensor, top: Tensor, total: Tensor, moment: Tensor) -> None:
    """Fold a tile into the running sums, moving them to the new maximum. Overwrites the tile."""
    new_top = torch.maximum(top, z.amax(1))
    shift = top - new_top
    decay = shift.exp()
    torch.exp(z.sub_(new_top[:, None]), out=powers)
    moment.add_(total * shift).mul_(decay).add_(torch.linalg.vecdot(powers, z))
    total.mul_(decay).add_(powers.sum(1))
    top.copy_(new_top)


def _check_finite(logprob: Tensor, entropy: Tensor) -> None:
    fine = torch.isfinite(logprob) & torch.isfinite(entropy) & (logprob > FLOOR / 2)
    if not bool(fine.all()):
        row = int((~fine).nonzero()[0, 0])
        raise TrainingError(
            f"log-prob or entropy of token {row} is not finite: the hidden states or the head have overflowed, "
            "or the label has a logit of minus infinity"
        )


@dataclass(frozen=True, slots=True)
class _Slope:
    """Per row, d loss / d z = p * (moment * log p + constant) + taken at the label."""

    lse: Tensor
    moment: Tensor | None
    constant: Tensor
    taken: Tensor | None

    @classmethod
    def of(cls, grad_logprob: Tensor | None, grad_entropy: Tensor | None, lse: Tensor, entropy: Tensor) -> _Slope:
        constant = torch.zeros_like(lse)
        if grad_logprob is not None:
            constant -= grad_logprob
        if grad_entropy is not None:
            constant -= grad_entropy * entropy
        return cls(lse, None if grad_entropy is None else -grad_entropy, constant, grad_logprob)

    def apply(self, z: Tensor, powers: Tensor, rows: slice, position: Tensor) -> Tensor:
        """Turn a tile of logits into their gradient, in place; with empty `powers`, by the compiled function."""
        if not len(powers):
            moment = torch.zeros_like(self.lse) if self.moment is None else self.moment
            z = compiled(slope)(z, self.lse[rows], moment[rows], self.constant[rows])
            return self._at_labels(z, rows, position)
        torch.exp(z.sub_(self.lse[rows, None]), out=powers)
        constant = self.constant[rows, None]
        if self.moment is None:
            torch.mul(powers, constant, out=z)
        else:
            torch.addcmul(constant, z, self.moment[rows, None], out=z).mul_(powers)
        return self._at_labels(z, rows, position)

    def _at_labels(self, z: Tensor, rows: slice, position: Tensor) -> Tensor:
        if self.taken is not None:
            inside = (position >= 0) & (position < z.shape[1])
            extra = torch.where(inside, self.taken[rows], 0.0)
            z.scatter_add_(1, position.clamp(0, z.shape[1] - 1)[:, None], extra[:, None])
        return z


def _backward(head: _Head, slopes: _Slope, wanted: tuple[bool, bool, bool]) -> list[Tensor | None]:
    """Gradients of hidden (scaled by the divisor), weight and bias (scaled), where wanted."""

    def zeros(shape: Sequence[int]) -> Tensor:
        return head.hidden.new_zeros(shape, dtype=head.wide)

    grad_hidden = zeros(head.hidden.shape) if wanted[0] else None
    grad_weight = zeros(head.weight.shape) if wanted[1] else None
    grad_bias = zeros(head.weight.shape[:1]) if wanted[2] else None
    logits, powers = head.buffer(), head.buffer()
    for columns, weight in head.columns():
        for rows in head.rows():
            z = head.tile(rows, columns, weight, logits)
            bend = head.curve.slope(z)
            room = powers[: z.numel()].view_as(z) if len(powers) else powers
            dz = slopes.apply(z, room, rows, head.labels[rows] - columns.start)
            if bend is not None:
                dz.mul_(bend)
            if head.tiling.fused:
                small = dz.to(weight.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] += product(small, weight)
                if grad_weight is not None:
                    grad_weight[columns] += product(small.T, head.hidden[rows])
            else:
                if grad_hidden is not None:
                    grad_hidden[rows].addmm_(dz, weight)
                if grad_weight is not None:
                    grad_weight[columns].addmm_(dz.T, head.hidden[rows])
            if grad_bias is not None:
                grad_bias[columns] += dz.sum(0)
    return [grad_hidden, grad_weight, grad_bias]
