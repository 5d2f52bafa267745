"""The learner's batch: typed columns, one row per token sequence (`common.md` 2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which token ids a constrained completion could choose from, ragged, one entry per *policy token*, row by row.

    Entry `k` is `ids[offsets[k]:offsets[k+1]]`; an empty entry means that every token was allowed.
    """

    ids: Tensor
    """[M] int64."""
    offsets: Tensor
    """[P+1] int64, P = number of policy tokens of the batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`B` rows padded on the right to `T` tokens. Column `t` of a per-token tensor speaks of token `ids[:, t]`."""

    ids: Tensor
    """[B, T] int64; 0 in the padding."""
    length: Tensor
    """[B] int64: tokens in each row, padding excluded."""
    mask: Tensor
    """[B, T] bool: tokens that the policy sampled. Never true in column 0."""
    step_id: Tensor
    """[B, T] int64: turn of the token, -1 where `mask` is false."""
    traj: Tensor
    """[B] int64: trajectory of the row (rows of one trajectory are its context-broken pieces)."""
    group: Tensor
    """[B] int64: rows of one group began in the same state."""
    reward: Tensor
    """[B] float64: total reward of the row's trajectory."""
    rollout_logprob: Tensor
    """[B, T] float32: log-prob under the engine that sampled the token, 0 where not masked in."""
    rollout_entropy: Tensor
    """[B, T] float32: entropy at generation, 0 where not masked in or unknown."""
    allowed: Allowed | None = None
    temperature: float = 1.0
    advantage: Tensor | None = None
    """[B, T] float32, 0 where not masked in."""
    old_logprob: Tensor | None = None
    """[B, T] float32: under the learner's weights before the first update of the iteration."""
    old_entropy: Tensor | None = None
    """[B, T] float32: of the same pass."""
    ref_logprob: Tensor | None = None
    """[B, T] float32: under the frozen reference policy."""

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.ids.shape[0], self.ids.shape[1]

    def with_(self, **columns: Any) -> Batch:
        """The same batch with some columns replaced."""
        return dataclasses.replace(self, **columns)
