"""How a step is cut into micro-batches changes nothing, whatever is registered."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from support.updates import MIXES, assert_same, learner, played, update
from torch import Tensor

from palaestra.training.forward import Flat, micro_batches
from palaestra.training.learner import Update


@cache
def budget(count: int) -> int:
    """Tokens of a micro-batch with which there are `count` of them."""
    batch = played()
    flat = Flat.of(batch)
    sizes = range(1, batch.ids.numel() + 1)
    return next(size for size in sizes if len(list(micro_batches(flat, batch.rows, size))) == count)


def second_step(overrides: list[str], count: int) -> tuple[Update, dict[str, Tensor]]:
    """The gradient where the policy has moved, in float64: a step of AdamW is rounding where its gradient is."""
    more = ["learner.epochs=2", "optimiser.lr=3e-3", f"learner.micro_batch_tokens={budget(count)}"]
    subject = learner(*overrides, *more)
    subject.policy.model.double()
    return update(subject, played())


@pytest.mark.parametrize("overrides", MIXES, ids=lambda o: "+".join(each.split(".", 1)[-1] for each in o[:2]))
def test_one_two_or_eight_micro_batches(overrides: list[str]) -> None:
    whole = second_step(overrides, 1)
    for count in (2, 8):
        parts = second_step(overrides, count)
        assert_same(parts[1], whole[1])
        assert parts[0].metrics.keys() == whole[0].metrics.keys()
        for name, expected in whole[0].metrics.items():
            close = None if expected is None else pytest.approx(expected, abs=1e-6, rel=1e-5)
            assert parts[0].metrics[name] == close, name


def test_counts_are_as_said() -> None:
    batch = played()
    for count in (1, 2, 8):
        parts = list(micro_batches(Flat.of(batch), batch.rows, budget(count)))
        assert len(parts) == count
        assert torch.equal(torch.cat([part.rows for part in parts]).sort().values, batch.rows)
