"""Sequences for the model that hold trees of rows, and several of them where there is room.

Without a layout a micro-batch is rows padded on the right. With one, rows that begin alike share what they have in
common (`learner.merge_prefixes`), and short rows fill the room behind long ones (`learner.packing`). Either changes
log-probs, entropies and gradients by rounding only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.prefixes import Cost, Tree, trees

DENSE = 3.0
"""What a pair of plain attention takes on a CPU beside its products: mask, softmax, and memory for the scores."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`s` sequences of at most `L` tokens."""

    ids: Tensor
    """[s, L] int64, 0 in the padding."""
    position: Tensor
    """[s, L] int64, of each token in its row."""
    end: Tensor
    """[s, L] int64: token `j` is read by the tokens from `j` to `end[j]`, that excluded; by itself in the padding."""
    sequence: Tensor
    """[p] int64: sequence of the token before each policy token, in the order of the rows."""
    place: Tensor
    """[p] int64: and its place there."""
    read: int
    """Tokens, padding excluded."""
    plain: bool
    """Every sequence is one row, so that causal attention is enough."""

    def mask(self, device: torch.device) -> Tensor:
        """[s, 1, L, L] bool: what is read."""
        place, end = torch.arange(self.ids.shape[1], device=device), self.end.to(device)
        behind = place[None, None, :] <= place[None, :, None]
        return (behind & (place[None, :, None] < end[:, None, :]))[:, None]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How rows become sequences."""

    cost: Cost
    merge: str = "episode"
    """`never`; `episode`: among the rows of an episode and those that branched off it; `always`: among all."""
    pack: bool = False
    """Fill sequences with several trees."""

    def sequences(self, batch: Batch, lengths: Tensor, rows: Tensor, budget: int) -> list[list[Tree]]:
        """Trees of the `rows` [b] by sequence, the longest first.

        Args:
            batch: what they are rows of.
            lengths: [B], how many tokens of each must be read.
            rows: those that are read.
            budget: most tokens of a tree of several rows.
        """
        family = self._families(batch)
        told = ((r, family[r], batch.ids[r, : int(lengths[r])].numpy()) for r in rows.tolist() if lengths[r] > 0)
        found = sorted(trees(told, self.cost, budget), key=len, reverse=True)
        if not self.pack or not found:
            return [[tree] for tree in found]
        return fill(found, len(found[0]) if self.cost.dense else max(len(found[0]), budget))

    def _families(self, batch: Batch) -> list[int]:
        if self.merge == "always":
            return [0] * len(batch.ids)
        if self.merge == "never":
            return list(range(len(batch.ids)))
        kin: list[int] = (batch.traj if batch.copy_of is None else batch.group).tolist()
        return kin


def fill(found: Iterable[Tree], width: int) -> list[list[Tree]]:
    """Put trees, longest first, into as few sequences of at most `width` tokens as best fit gives."""
    sequences: list[list[Tree]] = []
    room: list[int] = []
    for tree in found:
        fitting = [(left, k) for k, left in enumerate(room) if left >= len(tree)]
        if fitting:
            _, k = min(fitting)
            sequences[k].append(tree)
            room[k] -= len(tree)
        else:
            sequences.append([tree])
            room.append(max(0, width - len(tree)))
    return sorted(sequences, key=lambda each: -sum(map(len, each)))


def by_budget(sequences: Sequence[list[Tree]], budget: int) -> Iterator[list[list[Tree]]]:
    """Sequences (longest first) that go through the model together: at most `budget` padded tokens, or one."""
    start = 0
    while start < len(sequences):
        width = sum(map(len, sequences[start]))
        count = max(1, budget // width)
        yield list(sequences[start : start + count])
        start += count


def layout(sequences: Sequence[list[Tree]], rows: Tensor, before: Tensor, owner: Tensor) -> Layout:
    """The tensors of some sequences.

    Args:
        sequences: trees, those of each after each other.
        rows: [b], the rows that they hold.
        before: [p] columns of the tokens before the policy tokens of `rows`, row by row.
        owner: [p] positions in `rows` of their rows.
    """
    width = max(sum(map(len, each)) for each in sequences)
    shape = len(sequences), width
    ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    end = np.tile(np.arange(1, width + 1), (len(sequences), 1))
    places = {}
    for s, each in enumerate(sequences):
        start = 0
        for tree in each:
            span = slice(start, start + len(tree))
            ids[s, span], position[s, span], end[s, span] = tree.ids, tree.position, tree.end + start
            places.update({row: (s, where + start) for row, where in tree.places.items()})
            start = span.stop
    found = [places[row] for row in rows.tolist()]
    counts = torch.bincount(owner, minlength=len(rows)).tolist()
    columns = torch.split(before, counts)
    place = [torch.from_numpy(where)[c] for (_, where), c in zip(found, columns, strict=True)]
    return Layout(
        ids=torch.from_numpy(ids),
        position=torch.from_numpy(position),
        end=torch.from_numpy(end),
        sequence=torch.tensor([s for s, _ in found])[owner],
        place=torch.cat(place),
        read=sum(len(tree) for each in sequences for tree in each),
        plain=all(len(each) == 1 and each[0].chain for each in sequences),
    )


def cost_of(model: torch.nn.Module, attention_width: int, layers: int, dense: bool) -> Cost:
    """Of a model's forward pass, in multiplications.

    Args:
        model: its trunk; embeddings do not count.
        attention_width: heads times their size.
        layers: that attend.
        dense: see `Cost.dense`.
    """
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    return Cost(token=float(weights), pair=2.0 * attention_width * layers * (DENSE if dense else 1.0), dense=dense)
