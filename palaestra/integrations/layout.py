"""Our rows and other trainers' columns: prompts padded on the left, completions on the right.

A trajectory's prompt is what comes before the first token that the policy sampled; everything after it is the
completion, of which `env_mask` is 1 on the policy's tokens. Column `c` of a completion is column `prompt + c` of our
row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palaestra.training.batch import Batch


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each of the trainer's rows is in our batch."""

    batch: Batch
    row: Tensor
    """[G] int64, by episode: its row; -1 where nothing can be learned from it."""
    prompt: Tensor
    """[B] int64: tokens before the first that the policy sampled."""

    @classmethod
    def of(cls, batch: Batch, played: Sequence[str], learned: Sequence[str]) -> Layout:
        """The layout of an iteration.

        Args:
            batch: one row per trajectory.
            played: ids of all episodes, in the trainer's order.
            learned: ids of the batch's trajectories, by `batch.traj`.
        """
        places = {learned[int(traj)]: row for row, traj in enumerate(batch.traj)}
        row = torch.tensor([places.get(id, -1) for id in played], dtype=torch.int64)
        sampled = batch.mask if batch.copy_of is None else batch.mask | (batch.copy_of >= 0)
        return cls(batch, row, sampled.int().argmax(1) if len(row) and sampled.numel() else sampled.new_zeros(0).long())

    def rollout(self, filler: int) -> dict[str, Any]:
        """What TRL's `rollout_func` returns; `filler` is the token of rows that nothing is learned from."""
        named: dict[str, list[Any]] = {"prompt_ids": [], "completion_ids": [], "env_mask": [], "logprobs": []}
        for row in self.row.tolist():
            columns = ([filler], [filler], [0], [0.0]) if row < 0 else self._columns(row)
            for into, column in zip(named.values(), columns, strict=True):
                into.append(column)
        return named

    def _columns(self, row: int) -> tuple[list[int], list[int], list[int], list[float]]:
        start, end = int(self.prompt[row]), int(self.batch.length[row])
        ids, after = self.batch.ids[row], slice(start, end)
        return (
            ids[:start].tolist(),
            ids[after].tolist(),
            self.batch.mask[row, after].int().tolist(),
            self.batch.rollout_logprob[row, after].tolist(),
        )

    def completions(self, column: Tensor, width: int) -> Tensor:
        """A column [B, T] of the batch in the trainer's places, [G, width]; 0 where there is nothing."""
        found = column.new_zeros(len(self.row), width)
        for place, row in enumerate(self.row.tolist()):
            if row >= 0:
                start, end = int(self.prompt[row]), int(self.batch.length[row])
                found[place, : end - start] = column[row, start:end]
        return found

    def rows(self, completions: Tensor) -> Tensor:
        """Columns [G, width] of the trainer as a column [B, T] of the batch; 0 where there is nothing."""
        found = completions.new_zeros(self.batch.shape)
        for place, row in enumerate(self.row.tolist()):
            if row >= 0:
                start, end = int(self.prompt[row]), int(self.batch.length[row])
                found[row, start:end] = completions[place, : end - start]
        return found
