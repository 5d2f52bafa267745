from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from palaestra.agents.engines.vllm import changes as module
from palaestra.agents.engines.vllm.changes import Change, Changes


def applied(weights: dict[str, torch.Tensor], changes: list[Change]) -> None:
    """As vLLM does."""
    for change in changes:
        assert change.indices.dtype == torch.int32
        whole = weights.setdefault(change.name, torch.full(change.shape, torch.nan, dtype=change.values.dtype))
        whole.view(-1)[change.indices.long()] = change.values


@given(
    steps=st.lists(st.lists(st.tuples(st.integers(0, 14), st.floats(-1, 1, width=16)), max_size=6), max_size=5),
    lost=st.integers(0, 5),
)
def test_what_was_sent_adds_up_to_the_model(steps: list[list[tuple[int, float]]], lost: int) -> None:
    model = nn.Linear(4, 3).to(torch.bfloat16)
    flat = [(p, k) for p in model.parameters() for k in range(p.numel())]
    changes, received = Changes(model), dict[str, torch.Tensor]()
    for number, step in enumerate([[], *steps]):
        for place, value in step:
            parameter, k = flat[place]
            parameter.data.view(-1)[k] = value
        found = changes.found()
        if number == lost:
            continue  # it did not arrive, and is found again
        applied(received, found)
        changes.sent(found)
        for name, parameter in model.named_parameters():
            assert torch.equal(received[name], parameter.detach())
    assert changes.found() == [] or lost == len(steps)


def test_the_first_time_everything_is_sent_and_then_what_changed() -> None:
    model = nn.Linear(4, 3)
    changes = Changes(model)
    first = changes.found()
    assert [len(change.indices) for change in first] == [12, 3]
    changes.sent(first)
    model.weight.data[1, 2] += 1
    (change,) = changes.found()
    assert (change.name, change.indices.tolist(), change.shape) == ("weight", [6], (3, 4))
    assert change.values.tolist() == [model.weight[1, 2].item()]


def test_tensors_that_indices_cannot_address_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 11)
    with pytest.raises(ValueError, match="weight has 12 numbers, and 11 is the most; use nccl"):
        Changes(nn.Linear(4, 3))
