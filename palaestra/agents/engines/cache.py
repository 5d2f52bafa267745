"""The engine's key-value cache: one fixed row per slot, written in place by index."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass(slots=True)
class Placement:
    """Where the rows of one model call live in the cache, shared by all layers."""

    rows: slice | Tensor
    """Cache rows of the batch rows, in order: `slice(0, B)`, read without copying, or [B] int64."""
    index: Tensor
    """[B] int64: the same rows as numbers."""
    columns: Tensor
    """[B, Q] int64: cache column that each new token is written to; `capacity` is the scratch column."""
    length: int
    """Columns that are read."""
    n_rows: int
    """Rows that the cache must have."""
    capacity: int
    """Columns that the cache must have, one more being scratch."""
    _flat: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def flat(self, heads: int, width: int) -> Tensor:
        """[B * heads * Q] int64: `columns` as rows of a [n_rows * heads * width, D] matrix."""
        found = self._flat.get((heads, width))
        if found is None:
            head = self.index[:, None] * heads + torch.arange(heads, device=self.index.device)
            found = self._flat[heads, width] = (head[:, :, None] * width + self.columns[:, None, :]).flatten()
        return found


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped here
    """Keys and values of one layer: [slots, heads, columns + 1, D]. The last column takes what nobody will read."""

    is_sliding = False
    keys: Tensor | None
    values: Tensor | None

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for the placement, keeping what is there; new room is zero, so that masked reads are finite."""
        at = self.cache.placement
        self.keys = _grown(self.keys, key_states, at.n_rows, at.capacity)
        self.values = _grown(self.values, value_states, at.n_rows, at.capacity)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new tokens' [B, heads, Q, D]; return all keys and values of the rows, [B, heads, length, D]."""
        at = self.cache.placement
        keys, values = self.keys, self.values
        if keys is None or values is None or keys.shape[0] < at.n_rows or keys.shape[2] <= at.capacity:
            self.lazy_initialization(key_states, value_states)
            return self.update(key_states, value_states)
        return _write(keys, key_states, at), _write(values, value_states, at)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that are read, and the first of them."""
        return self.cache.placement.length, 0

    def get_seq_length(self) -> int:
        """Zero: positions are always passed to the model."""
        return 0

    def get_max_length(self) -> int:
        """No maximum: the cache grows."""
        return -1

    get_max_cache_shape = get_max_length
    """Its name in transformers 5.10, which verl wants."""


class SlotCache(Cache):  # type: ignore[misc]
    """A transformers cache whose rows are the engine's slots. Set `placement` before each model call."""

    placement: Placement

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=partial(SlotLayer, self))

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` columns of one row to another, in every layer."""
        for layer in self.layers:
            if layer.keys.shape[0] <= target:
                layer.keys, layer.values = (
                    _grown(x, x, target + 1, x.shape[2] - 1) for x in (layer.keys, layer.values)
                )
            for store in (layer.keys, layer.values):
                store[target, :, :length] = store[source, :, :length]


def _write(store: Tensor, new: Tensor, at: Placement) -> Tensor:
    _, heads, width, dim = store.shape
    store.view(-1, dim).index_copy_(0, at.flat(heads, width), new.reshape(-1, dim))
    if isinstance(at.rows, slice):
        return store[at.rows, :, : at.length]
    return store[:, :, : at.length].index_select(0, at.rows)


def _grown(old: Tensor | None, like: Tensor, rows: int, columns: int) -> Tensor:
    if old is None:
        return like.new_zeros(rows, like.shape[1], columns + 1, like.shape[3])
    kept_rows, heads, width, dim = old.shape
    new = old.new_zeros(max(rows, kept_rows), heads, max(columns + 1, width), dim)
    new[:kept_rows, :, : width - 1] = old[:, :, : width - 1]
    return new
