"""A softmax over twenty actions that learns by the real policy loss from rewards that are 0 or 1 by chance."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from support.gating import batch_of
from torch import Tensor

from palaestra.training.policy_loss import Bounds, PolicyLoss
from palaestra.training.seams import Gate, Moment, Tokens

ACTIONS, SAMPLES, EPOCHS = 20, 128, 8
NOTHING = batch_of([0])


def entropies(logits: Tensor) -> Tensor:
    """Nats, by seed."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def entropy_after(
    bounds: Bounds, gate: Gate | None = None, *, iterations: int = 100, seeds: int = 12
) -> tuple[float, float]:
    """Mean entropy over the seeds, before and after training."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(seeds, ACTIONS, generator=g, dtype=torch.float64)
    start = float(entropies(logits).mean())
    for _ in range(iterations):
        taken = torch.multinomial(logits.softmax(1), SAMPLES, replacement=True, generator=g)
        reward = torch.randint(0, 2, taken.shape, generator=g).double()
        advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)
        old = logits.log_softmax(1).gather(1, taken)
        for _ in range(EPOCHS):
            logits = step(logits, taken, (old.flatten(), advantage.flatten()), PolicyLoss(bounds=bounds), gate)
    return start, float(entropies(logits).mean())


def step(logits: Tensor, taken: Tensor, columns: tuple[Tensor, Tensor], loss: PolicyLoss, gate: Gate | None) -> Tensor:
    """One of gradient descent."""
    leaf, (old, advantage) = logits.clone().requires_grad_(), columns
    logprob = leaf.log_softmax(1).gather(1, taken).flatten()
    entropy = entropies(logits)[:, None].expand(taken.shape).flatten()
    tokens = Tokens(logprob, entropy, old, old, advantage, torch.zeros(len(logprob), dtype=torch.int64))
    if gate is not None:
        said = gate(replace(tokens, logprob=logprob.detach()), NOTHING, Moment(0, 1))
        tokens = replace(tokens, weight=said.weight)
    return logits - torch.autograd.grad(loss.value(tokens).value.sum() / SAMPLES, leaf)[0]


def plain(low: float = 0.2, high: float = 0.2) -> Bounds:
    """Without dual clip."""
    return Bounds(low, high, math.inf)
