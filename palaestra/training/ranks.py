"""Data parallelism: every rank holds the whole batch and works on its share of the rows.

Denominators, advantages and choices are of the whole batch everywhere, so adding the ranks' gradients up gives that of
one process. Without an initialised process group there is one rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """How many processes work on one update."""
    return dist.get_world_size() if _running() else 1


def share(rows: Tensor) -> Tensor:
    """This rank's part of `rows` [b]; the parts of all ranks are disjoint and cover them."""
    return rows[dist.get_rank() :: dist.get_world_size()] if _running() else rows


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks, which must bring the same shapes in the same order."""
    if _running():
        for tensor in tensors:
            dist.all_reduce(tensor)


def added_up(numbers: Mapping[str, float]) -> dict[str, float]:
    """Sums over the ranks by name; a rank need not have every name."""
    if not _running():
        return dict(numbers)
    found: list[Any] = [None] * ranks()
    dist.all_gather_object(found, dict(numbers))
    total: Counter[str] = Counter()
    for each in found:
        total.update(each)
    return dict(sorted(total.items()))


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()
