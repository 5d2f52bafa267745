"""Over which tokens of an optimiser step a gate takes its statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from palaestra.config import Recipe
from palaestra.training.batch import Batch
from palaestra.training.forward import Flat, micro_batches
from palaestra.training.numbering import number
from palaestra.training.seams import Tokens

Scope = Literal["step", "micro"]


def budget_of(recipe: Recipe, scope: Scope) -> int | None:
    """What `places` takes: the tokens of a micro-batch, or `None` for the whole step."""
    return recipe.learner.micro_batch_tokens if scope == "micro" else None


def places(tokens: Tokens, batch: Batch, budget: int | None) -> Iterator[Tensor]:
    """Positions [p] of the step's tokens that belong together: all, or micro-batch by micro-batch as one process cuts
    the step's rows."""
    assert tokens.row is not None
    if budget is None:
        yield torch.arange(len(tokens.row))
        return
    for part in micro_batches(Flat.of(batch), number(tokens.row).known, budget):
        yield torch.isin(tokens.row, part.rows).nonzero()[:, 0]
