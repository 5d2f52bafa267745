"""Arbitrary identities (trajectories, groups, pairs of them) as numbers from 0."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor


class Numbering(NamedTuple):
    """Distinct identities in sorted order."""

    known: Tensor
    """[K] or [K, C]: the identities."""
    number: Tensor
    """[N] int64: each entry's position in `known`."""
    size: Tensor
    """[K] int64: entries of each identity."""


def number(identity: Tensor) -> Numbering:
    """Number the entries of [N], or the rows of [N, C], int64."""
    found = torch.unique(identity, dim=0, return_inverse=True, return_counts=True)
    return Numbering(*cast(tuple[Tensor, Tensor, Tensor], found))
