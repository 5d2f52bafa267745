"""One call of a causal language model on some slots: new tokens in, logits of the last ones out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from palaestra.agents.engines.cache import Placement, SlotCache
from palaestra.errors import EngineError

_SMALLEST = 128  # columns of the first cache; it doubles from there


class CachedModel:
    """A causal language model of transformers with a cache of fixed slots.

    Any model works whose layers all attend to the whole context through a key-value cache. Models with a sliding window
    work up to the window; models with recurrent states are refused.
    """

    def __init__(self, model: PreTrainedModel, *, compiled: bool = False) -> None:
        """`compiled`: torch compiles steps of one token a row, for any number of rows and columns."""
        self.model = model
        self.context_length = _context_length(model)
        self._step: Callable[..., Any] = torch.compile(model.forward, dynamic=True) if compiled else model
        self._cache = SlotCache()
        self._capacity = 0

    def drop(self) -> None:
        """Free the cache's memory."""
        self._cache, self._capacity = SlotCache(), 0

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Give row `target` the first `length` columns of row `source`."""
        self._cache.copy(source, target, length)

    @torch.inference_mode()
    def __call__(self, rows: Sequence[int], tokens: Sequence[Sequence[int]], start: Sequence[int]) -> Tensor:
        """Append `tokens[k]` to cache row `rows[k]` at position `start[k]`; return the last tokens' logits, [R, V].

        Rows may be of uneven lengths (padded on the left, so that the last column is the last token of all); no row may
        occur twice. Where the rows nearly fill the range from 0, the whole range is computed in place of a gather.
        """
        rows, tokens, start, keep = _dense(rows, tokens, start)
        placement, positions = self._place(rows, tokens, start, in_place=list(rows) == list(range(len(rows))))
        self._cache.placement = placement
        width, device = positions.shape[1], self.model.device
        ids = torch.tensor([[0] * (width - len(t)) + list(t) for t in tokens], device=device)
        seen = torch.arange(placement.length, device=device) <= positions[:, :, None]
        zero = torch.zeros((), dtype=self.model.dtype, device=device)
        with _evaluating(self.model):
            call = self._step if width == 1 else self.model
            logits: Tensor = call(
                input_ids=ids,
                position_ids=positions,
                attention_mask=zero.masked_fill(~seen, -math.inf)[:, None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return logits if keep is None else logits[keep]

    def _place(
        self, rows: Sequence[int], tokens: Sequence[Sequence[int]], start: Sequence[int], in_place: bool
    ) -> tuple[Placement, Tensor]:
        """Cache columns and positions, [R, Q]; padding is written to the scratch column and looks at column 0."""
        width = max(map(len, tokens))
        length = max(s + len(t) for s, t in zip(start, tokens, strict=True))
        while self._capacity < length:
            self._capacity = min(max(2 * self._capacity, _SMALLEST), max(self.context_length, length))
        device = self.model.device
        index = torch.tensor(rows, device=device)
        first = torch.tensor([s + len(t) - width for s, t in zip(start, tokens, strict=True)], device=device)
        begin = torch.tensor([s if t else length for s, t in zip(start, tokens, strict=True)], device=device)
        positions = first[:, None] + torch.arange(width, device=device)
        padding = positions < begin[:, None]
        placement = Placement(
            rows=slice(0, len(rows)) if in_place else index,
            index=index,
            columns=positions.masked_fill(padding, self._capacity),
            length=length,
            n_rows=max(rows) + 1,
            capacity=self._capacity,
        )
        return placement, positions.masked_fill(padding, 0)


def _dense(
    rows: Sequence[int], tokens: Sequence[Sequence[int]], start: Sequence[int]
) -> tuple[Sequence[int], Sequence[Sequence[int]], Sequence[int], list[int] | None]:
    """Decode steps on most of the rows 0..n: fill the gaps with rows that write to scratch; no gathering."""
    n = max(rows) + 1
    if list(rows) == list(range(n)) or max(map(len, tokens)) > 1 or 2 * len(rows) < n:
        return rows, tokens, start, None
    all_tokens: list[Sequence[int]] = [()] * n
    all_start = [0] * n
    for row, token, s in zip(rows, tokens, start, strict=True):
        all_tokens[row], all_start[row] = token, s
    return range(n), all_tokens, all_start, list(rows)


def _context_length(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    foreign = kinds - {"full_attention", "sliding_attention", "chunked_attention"}
    if foreign or getattr(model, "_is_stateful", False):
        raise EngineError(f"{type(model).__name__} keeps states other than keys and values; use another model")
    length = int(getattr(config, "max_position_embeddings", 0) or 2**30)
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        length = min([length, *(int(w) for w in windows if w)])
    return length


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """No dropout, even if the learner left its model in training mode."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
