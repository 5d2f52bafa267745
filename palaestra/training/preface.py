"""The same rows with a text before them: what a model would say of its actions, had it read that text first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from palaestra.training.batch import Batch


def prefaced(batch: Batch, texts: Sequence[Sequence[int]], at: Sequence[int]) -> tuple[Batch, Tensor]:
    """The batch with `texts[b]` inserted before column `at[b]` of each row, and how far each row's tokens moved [B].

    Policy tokens keep their order, so `allowed` fits both. Nothing before `at` may be a policy token.
    """
    shift = torch.tensor([len(text) for text in texts], dtype=torch.int64)
    wide = int((batch.length + shift).max()) if len(texts) else 0
    wide = max(wide, batch.shape[1])
    ids, step_id = torch.zeros(len(texts), wide, dtype=torch.int64), torch.full((len(texts), wide), -1)
    for row, (text, place) in enumerate(zip(texts, at, strict=True)):
        length, start = int(batch.length[row]), place + len(text)
        ids[row, :place] = batch.ids[row, :place]
        ids[row, place:start] = torch.tensor(list(text), dtype=torch.int64)
        ids[row, start : length + len(text)] = batch.ids[row, place:length]
        step_id[row, start : length + len(text)] = batch.step_id[row, place:length]
    zero = torch.zeros(ids.shape)
    changed = batch.with_(
        ids=ids,
        length=batch.length + shift,
        mask=step_id >= 0,
        step_id=step_id,
        rollout_logprob=zero,
        rollout_entropy=zero,
    )
    bare = dict.fromkeys(("advantage", "old_logprob", "old_entropy", "ref_logprob", "copy_of"))
    return changed.with_(**bare, extra={}), shift


def moved_back(column: Tensor, shift: Tensor, width: int) -> Tensor:
    """[B, width]: the columns of the rows as they were before each was moved by `shift` [B]; 0 beyond."""
    place = torch.arange(width) + shift[:, None]
    inside = place < column.shape[1]
    return torch.where(inside, column.gather(1, place.clamp(max=column.shape[1] - 1)), 0.0)
