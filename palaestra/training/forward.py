"""The forward pass: micro-batches of rows in, log-probs and entropies of their policy tokens out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from palaestra.training.batch import Allowed, Batch
from palaestra.training.curve import Curve
from palaestra.training.distribution import distribution_statistics
from palaestra.training.head import HeadShape
from palaestra.training.layout import Arrangement, Layout, by_budget, layout
from palaestra.training.logprob import logprob_entropy
from palaestra.training.seams import Statistic
from palaestra.training.tree_attention import attention_mask


@dataclass(frozen=True, slots=True)
class Flat:
    """Where a batch's policy tokens are, in row-major order: token `k` is `batch.mask.nonzero()[k]`."""

    row: Tensor
    """[P] int64."""
    column: Tensor
    """[P] int64."""
    offsets: Tensor
    """[B+1] int64: tokens `offsets[b]` to `offsets[b+1]` are those of row `b`."""
    span: Tensor
    """[B] int64: tokens that must be read to predict the row's last policy token; 0 in rows without any."""

    @classmethod
    def of(cls, batch: Batch) -> Flat:
        """The index of a batch."""
        row, column = batch.mask.nonzero(as_tuple=True)
        per_row = batch.mask.sum(1)
        offsets = torch.cat((per_row.new_zeros(1), per_row.cumsum(0)))
        span = torch.zeros_like(per_row).scatter_reduce(0, row, column, "amax")
        return cls(row, column, offsets, span)

    def tokens_of(self, rows: Tensor) -> Tensor:
        """[p] int64: the policy tokens of `rows`, in the order of the rows."""
        starts, counts = self.offsets[rows], (self.offsets[rows + 1] - self.offsets[rows])
        return ranges(starts, counts)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that go through the model together."""

    rows: Tensor
    """[b] int64."""
    tokens: Tensor
    """[p] int64: their policy tokens, as positions in `Flat`."""
    width: int
    """Columns to read."""
    layout: Layout | None = None
    """Where the rows are in sequences of another shape; `None`: each is a sequence."""

    def read(self, flat: Flat) -> int:
        """Tokens that go through the model, padding excluded."""
        return int(flat.span[self.rows].sum()) if self.layout is None else self.layout.read


def micro_batches(flat: Flat, rows: Tensor, budget: int) -> Iterator[MicroBatch]:
    """Cover `rows` by micro-batches of at most `budget` padded tokens (or of one longer row), longest rows first.

    Rows without policy tokens are left out.
    """
    rows = rows[flat.span[rows] > 0]
    rows = rows[flat.span[rows].argsort(descending=True, stable=True)]
    start = 0
    while start < len(rows):
        width = int(flat.span[rows[start]])
        part = rows[start : start + max(1, budget // width)]
        yield MicroBatch(part, flat.tokens_of(part), width)
        start += len(part)


def arranged(
    batch: Batch, flat: Flat, rows: Tensor, budget: int, arrangement: Arrangement, part: tuple[int, int] = (0, 1)
) -> Iterator[MicroBatch]:
    """As `micro_batches`, of sequences in which rows share what they begin with.

    Args:
        batch: what `rows` [b] are rows of.
        flat: its index.
        rows: to be covered.
        budget: padded tokens of a micro-batch.
        arrangement: how rows become sequences.
        part: (k, n), the k-th of n disjoint parts that together cover `rows`; a tree is in one of them.
    """
    mine, of = part
    sequences = arrangement.sequences(batch, flat.span, rows, budget)[mine::of]
    for some in by_budget(sequences, budget):
        members = torch.tensor(sorted(row for each in some for tree in each for row in tree.places))
        tokens = flat.tokens_of(members)
        counts = flat.offsets[members + 1] - flat.offsets[members]
        owner = torch.repeat_interleave(torch.arange(len(members)), counts)
        shape = layout(some, members, flat.column[tokens] - 1, owner)
        yield MicroBatch(members, tokens, shape.ids.shape[1], shape)


class Scores(NamedTuple):
    """What a policy says about policy tokens."""

    logprob: Tensor
    """[p], as is the next; nats, at the batch's temperature."""
    entropy: Tensor
    extra: Mapping[str, Tensor]
    """[p] each: the statistics that were asked for."""


class PolicyModel:
    """A transformers causal language model, seen as a function from rows to log-probs and entropies."""

    def __init__(self, model: Any, *, autocast: torch.dtype | None = None) -> None:
        """Args:
            model: its logits must follow from its last hidden states as `HeadShape` says.
            autocast: dtype of the trunk's matrix products; `None` or float32 for none.

        Raises:
            ConfigError: they do not.
        """
        self.model = model
        self.trunk: nn.Module = model.base_model
        self.head: nn.Linear = model.get_output_embeddings()
        self.shape = HeadShape.of(model)
        self.autocast = autocast if autocast is not torch.float32 else None
        self.whole: nn.Module | None = None
        """Around the model where it is spread over ranks, see `palaestra.training.sharding`."""
        self.around: Callable[[], AbstractContextManager[Any]] = nullcontext
        """Makes what every pass through the trunk runs in."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def __call__(self, batch: Batch, flat: Flat, part: MicroBatch, statistics: Sequence[Statistic] = ()) -> Scores:
        """Of the micro-batch's policy tokens.

        Rows are padded on the right and attention is causal, so no mask is needed: padding comes after what counts.
        """
        if self.whole is None:
            return self._scores(batch, flat, part, statistics)
        scores: Scores = self.whole(lambda: self._scores(batch, flat, part, statistics))
        return scores

    def idle(self) -> Tensor:
        """Take part in a forward pass of other ranks with nothing to compute; 0, whose gradients are all 0."""
        assert self.whole is not None
        one = torch.zeros(1, 1, dtype=torch.int64)

        def touched() -> Tensor:
            """Of every weight, as each rank must have a gradient of each."""
            head = (self.head.weight, self.head.bias)
            return sum((each.float().sum() for each in head if each is not None), self.hidden(one).float().sum()) * 0

        nothing: Tensor = self.whole(touched)
        return nothing

    def _scores(self, batch: Batch, flat: Flat, part: MicroBatch, statistics: Sequence[Statistic]) -> Scores:
        device = self.device
        hidden = self.states(batch, flat, part)
        labels = batch.ids[flat.row[part.tokens], flat.column[part.tokens]].to(device)
        allowed = None if batch.allowed is None else select_allowed(batch.allowed, part.tokens).to(device)
        weight, bias, shape = self.head.weight, self.head.bias, self.shape
        logprob, entropy = logprob_entropy(
            hidden,
            weight,
            labels,
            temperature=batch.temperature,
            allowed=allowed,
            bias=bias,
            scale=shape.scale,
            soft_cap=shape.soft_cap,
        )
        curve = Curve.of(batch.temperature, shape.scale, shape.soft_cap)
        extra = distribution_statistics(statistics, hidden, weight, labels, curve=curve, allowed=allowed, bias=bias)
        return Scores(logprob, entropy, extra)

    def states(self, batch: Batch, flat: Flat, part: MicroBatch) -> Tensor:
        """Last hidden states [p, D] before the micro-batch's policy tokens."""
        device, shape = self.device, part.layout
        if shape is not None:
            return self.laid_out(shape)[shape.sequence.to(device), shape.place.to(device)]
        before = flat.column[part.tokens] - 1
        return self.hidden(batch.ids[part.rows, : part.width])[part_rows(flat, part).to(device), before.to(device)]

    def laid_out(self, shape: Layout) -> Tensor:
        """Last hidden states [s, L, D] of a layout."""
        if shape.plain:
            return self.hidden(shape.ids)
        mask = attention_mask(self.model, shape, self.device)
        return self.hidden(shape.ids, position_ids=shape.position.to(self.device), attention_mask=mask)

    def hidden(self, ids: Tensor, **more: Any) -> Tensor:
        """Last hidden states [b, t, D] of `ids` [b, t]; `more` goes to the model."""
        autocast = torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)
        with self.around(), autocast:
            state: Tensor = self.trunk(input_ids=ids.to(self.device), use_cache=False, **more).last_hidden_state
        return state


def part_rows(flat: Flat, part: MicroBatch) -> Tensor:
    """[p] int64: position within the micro-batch of each policy token's row."""
    counts = flat.offsets[part.rows + 1] - flat.offsets[part.rows]
    return torch.repeat_interleave(torch.arange(len(part.rows)), counts)


def select_allowed(allowed: Allowed, tokens: Tensor) -> Allowed:
    """The entries of `tokens` [p], in their order."""
    starts, counts = allowed.offsets[tokens], allowed.offsets[tokens + 1] - allowed.offsets[tokens]
    offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    return Allowed(ids=allowed.ids[ranges(starts, counts)], offsets=offsets)


def ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """`starts[0], starts[0]+1, ... (counts[0] of them), starts[1], ...`, int64."""
    begin = torch.repeat_interleave(starts - (counts.cumsum(0) - counts), counts)
    return begin + torch.arange(len(begin))
