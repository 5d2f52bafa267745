"""Clip bounds as a control of entropy: a softmax over twenty actions that learns from coins."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from support.updates import build
from torch import Tensor

from palaestra.training.policy_loss import Bounds, PolicyLoss
from palaestra.training.seams import Tokens

SEEDS, ACTIONS, SAMPLES, EPOCHS, ITERATIONS = 12, 20, 128, 8, 100


def entropy(logits: Tensor) -> float:
    """Mean over the seeds, in nats."""
    return float(-(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean())


def step(logits: Tensor, taken: Tensor, old: Tensor, advantage: Tensor, loss: PolicyLoss) -> Tensor:
    """One of gradient descent on the real policy loss."""
    leaf = logits.clone().requires_grad_()
    logprob = leaf.log_softmax(1).gather(1, taken).flatten()
    turn = torch.zeros(len(logprob), dtype=torch.int64)
    tokens = Tokens(logprob, torch.zeros_like(logprob), old, old, advantage, turn)
    return logits - torch.autograd.grad(loss.value(tokens).value.sum() / SAMPLES, leaf)[0]


@cache
def final_entropy(low: float, high: float) -> float:
    """After training with these bounds on rewards that are 0 or 1 by chance."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(SEEDS, ACTIONS, generator=g, dtype=torch.float64)
    assert entropy(logits) == pytest.approx(2.56, abs=0.01)
    loss = PolicyLoss(bounds=Bounds(low, high, math.inf))
    for _ in range(ITERATIONS):
        taken = torch.multinomial(logits.softmax(1), SAMPLES, replacement=True, generator=g)
        reward = torch.randint(0, 2, taken.shape, generator=g).double()
        advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)
        old = logits.log_softmax(1).gather(1, taken)
        for _ in range(EPOCHS):
            logits = step(logits, taken, old.flatten(), advantage.flatten(), loss)
    return entropy(logits)


def test_a_narrow_lower_bound_keeps_entropy_and_a_narrow_upper_one_takes_it() -> None:
    ours, even, upper = final_entropy(0.05, 0.2), final_entropy(0.2, 0.2), final_entropy(0.2, 0.05)
    assert ours > even + 0.2 > upper + 0.4


def test_wide_bounds_do_the_opposite() -> None:
    assert final_entropy(0.2, 0.8) > final_entropy(0.2, 0.2) > final_entropy(0.8, 0.2)


def test_the_preset_is_its_bounds() -> None:
    (term,) = build("algorithm.name=asym_clip").parts.terms
    assert isinstance(term, PolicyLoss)
    assert (term.bounds.clip_low, term.bounds.clip_high) == (0.05, 0.2)
    (own,) = build("algorithm.name=asym_clip", "algorithm.clip_high=0.8").parts.terms
    assert isinstance(own, PolicyLoss)
    assert own.bounds.clip_high == 0.8
