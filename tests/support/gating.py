"""Tokens by hand, and what every plug-in that looks at tokens is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from support.updates import assert_same, learner, played, update
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.seams import Tokens

Column = Sequence[float]


def column(values: Column) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch_of(lengths: Sequence[int], **columns: Any) -> Batch:
    """Rows of `lengths` policy tokens after one of context, a trajectory each."""
    width = 1 + max(lengths, default=0)
    place = torch.arange(width).expand(len(lengths), width)
    mask = (place > 0) & (place <= torch.tensor(lengths, dtype=torch.int64)[:, None])
    rows, empty = torch.arange(len(lengths)), torch.zeros(len(lengths), width)
    batch = Batch(
        ids=torch.ones(len(lengths), width, dtype=torch.int64),
        length=1 + torch.tensor(lengths),
        mask=mask,
        step_id=torch.where(mask, 0, -1),
        traj=rows,
        group=torch.zeros_like(rows),
        reward=torch.zeros(len(lengths), dtype=torch.float64),
        rollout_logprob=empty,
        rollout_entropy=empty,
    )
    return batch.with_(**columns)


def tokens_of(
    batch: Batch,
    *,
    logprob: Column,
    entropy: Column | None = None,
    old_logprob: Column | None = None,
    old_entropy: Column | None = None,
    advantage: Column | None = None,
    old_extra: dict[str, Column] | None = None,
    extra: dict[str, Column] | None = None,
) -> Tokens:
    """The batch's policy tokens in row-major order; what is left out is present = old, entropy 1, advantage 1."""
    size = int(batch.mask.sum())
    entropies = column(entropy if entropy is not None else [1.0] * size)
    return Tokens(
        logprob=column(logprob),
        entropy=entropies,
        old_logprob=column(old_logprob if old_logprob is not None else logprob),
        rollout_logprob=column(logprob),
        advantage=column(advantage if advantage is not None else [1.0] * size),
        step_id=batch.step_id[batch.mask],
        row=batch.mask.nonzero()[:, 0],
        old_entropy=column(old_entropy) if old_entropy is not None else entropies,
        extra={name: column(values) for name, values in (extra or {}).items()},
        old_extra={name: column(values) for name, values in (old_extra or {}).items()},
    )


def assert_micro_batches_change_nothing(*overrides: str) -> None:
    """Neither in a first, on-policy step nor in a later one."""
    base = ["algorithm.name=grpo", *overrides]
    for mini_batches in (1, 3):
        whole = update(learner(*base, mini_batches=mini_batches, micro_batch_tokens=10**6), played())
        for size in (30, 60):
            part = update(learner(*base, mini_batches=mini_batches, micro_batch_tokens=size), played())
            assert_same(part[1], whole[1])
            assert part[0].metrics == pytest.approx(whole[0].metrics, rel=1e-4, abs=1e-5)


def assert_changes_the_update(*overrides: str) -> None:
    """The setting does something, or a test of it would say nothing."""
    ours = update(learner("algorithm.name=grpo", *overrides, mini_batches=2), played())[1]
    grpo = update(learner("algorithm.name=grpo", mini_batches=2), played())[1]
    assert any(not torch.equal(ours[name], grpo[name]) for name in grpo)


def slope(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of a scalar function, of the shape of `at`."""
    found = torch.zeros_like(at)
    for place in range(at.numel()):
        bump = torch.zeros_like(at)
        bump.view(-1)[place] = step
        found.view(-1)[place] = (function(at + bump) - function(at - bump)) / (2 * step)
    return found
