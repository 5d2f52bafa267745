"""Which numbers of a model have changed since they were last sent.

At the learning rates of reinforcement learning a step leaves most bfloat16 weights as they are: it is smaller than
half their last place. vLLM takes the others alone, as a flat index and a value each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

LARGEST = 2**31 - 1
"""Numbers of a tensor that vLLM's 32-bit indices can tell apart."""


class Change(NamedTuple):
    """What has changed in a tensor."""

    name: str
    indices: Tensor
    """[n] int32, in the flattened tensor."""
    values: Tensor
    """[n]."""
    shape: tuple[int, ...]
    """Of the whole tensor."""


class Changes:
    """Keeps a copy of what was sent; the first time that is everything.

    Raises:
        ValueError: a tensor has too many numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._sent: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if parameter.numel() > LARGEST:
                raise ValueError(f"{name} has {parameter.numel():,} numbers, and {LARGEST:,} is the most; use nccl")

    @torch.no_grad()
    def found(self) -> list[Change]:
        """What differs from what was sent last, tensors without a difference left out."""
        changes = []
        for name, parameter in self._model.named_parameters():
            now = parameter.detach().reshape(-1)
            sent = self._sent.get(name)
            differs = torch.ones_like(now, dtype=torch.bool) if sent is None else now != sent
            indices = differs.nonzero().squeeze(1)
            if len(indices):
                changes.append(Change(name, indices.int(), now[indices], tuple(parameter.shape)))
        return changes

    @torch.no_grad()
    def sent(self, changes: list[Change]) -> None:
        """These have arrived."""
        for change in changes:
            kept = self._sent.get(change.name)
            if kept is None:
                self._sent[change.name] = change.values.clone()
            else:
                kept[change.indices.long()] = change.values
