"""Rows that begin alike, as a tree in which what they share is read once.

Sorted by their tokens, rows that share a prefix are neighbours, and a tree in preorder is written by appending to each
row what it has beyond the one before:

    system look left          place     0      1    2    3     4
    system look right    →    token     system look left right wait
    system wait               position  0      1    2    2     1
                              end       5      4    3    4     5

Token `j` is read by token `i` where `j` lies on the way from the root to it: `j <= i < end[j]`. So a tree is one
sequence with positions and an attention mask, and what the model says of a row's tokens is what it says of the row
alone, up to rounding. One row a turn, each with all turns before it, is read in O(T) tokens and not in O(T^2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cost:
    """What reading takes, in any unit: decides whether a row is cheaper within a tree or apart from it."""

    token: float = 1.0
    """Of a token, in all matrix products with weights."""
    pair: float = 0.0
    """Of a query and a key, in attention."""
    dense: bool = True
    """Attention computes the pairs that its mask forbids, too."""

    def of(self, tokens: int, pairs: int) -> float:
        """Of a sequence.

        Args:
            tokens: its length.
            pairs: queries and keys that its mask allows.
        """
        return self.token * tokens + self.pair * (tokens * tokens if self.dense else pairs)


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows in one sequence."""

    ids: Ids
    """[L], in preorder."""
    position: Ids
    """[L]: how many tokens come before in the row; positions of the model."""
    end: Ids
    """[L]: the first place behind all that continue the token."""
    places: Mapping[int, Ids]
    """By row, where each of its tokens is."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def chain(self) -> bool:
        """Whether no row leaves another: then it is one sequence as any other."""
        return bool((self.end == len(self.ids)).all())


@dataclass(slots=True)
class _Growing:
    """A tree that rows are still added to, in the order of their tokens."""

    size: int = 0
    pairs: int = 0
    """Allowed by the mask."""
    places: dict[int, Ids] = field(default_factory=dict)
    ids: list[Ids] = field(default_factory=list)
    position: list[Ids] = field(default_factory=list)
    path: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    """The last row's places."""
    cuts: list[tuple[Ids, int]] = field(default_factory=list)
    """Places that nothing continues from a place on."""

    def add(self, row: int, ids: Ids, shared: int) -> None:
        """Append a row that has its first `shared` tokens in common with the last one."""
        new = np.arange(self.size, self.size + len(ids) - shared)
        self.cuts.append((self.path[shared:], self.size))
        self.path = np.concatenate((self.path[:shared], new))
        self.places[row] = self.path
        self.ids.append(ids[shared:])
        self.position.append(np.arange(shared, len(ids)))
        self.size += len(new)
        self.pairs += _pairs(len(ids)) - _pairs(shared)

    def done(self) -> Tree:
        end = np.full(self.size, self.size, np.int64)
        for places, place in self.cuts:
            end[places] = place
        return Tree(np.concatenate(self.ids), np.concatenate(self.position), end, self.places)


def trees(rows: Iterable[tuple[int, int, Ids]], cost: Cost, limit: int) -> Iterator[Tree]:
    """Put rows that begin alike into trees, as far as that is cheaper.

    Args:
        rows: number, family and tokens [t] (t > 0) of each. Only rows of one family share anything.
        cost: of reading.
        limit: most tokens of a tree of several rows.
    """
    # Big-endian bytes are ordered as the numbers are, and a prefix comes before what continues it.
    ordered = sorted(rows, key=lambda each: (each[1], each[2].astype(">u8").tobytes(), each[0]))
    tree, family, last = _Growing(), -1, np.zeros(0, np.int64)
    for row, kin, ids in ordered:
        shared = common_prefix(last, ids) if tree.size and kin == family else 0
        if tree.size and not _joins(tree, len(ids), shared, cost, limit):
            yield tree.done()
            tree, shared = _Growing(), 0
        tree.add(row, ids, shared)
        family, last = kin, ids
    if tree.size:
        yield tree.done()


def common_prefix(a: Ids, b: Ids) -> int:
    """How many tokens both begin with."""
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size


def _joins(tree: _Growing, length: int, shared: int, cost: Cost, limit: int) -> bool:
    """Whether a row of `length` tokens is cheaper in the tree."""
    if not shared:
        return False
    if shared == length or shared == tree.size:  # it is there already, or goes on where the only row ends
        return True
    size = tree.size + length - shared
    if size > limit:
        return False
    together = cost.of(size, tree.pairs + _pairs(length) - _pairs(shared))
    return together < cost.of(tree.size, tree.pairs) + cost.of(length, _pairs(length))


def _pairs(length: int) -> int:
    """Pairs of a causal row."""
    return length * (length + 1) // 2
