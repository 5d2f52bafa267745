"""Clip_B and the entropy-change discriminator that it goes by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.coins import entropy_after, plain
from support.gating import assert_changes_the_update, assert_micro_batches_change_nothing, batch_of, column, tokens_of
from support.updates import MOMENT, build
from torch import Tensor

from palaestra.training.plugins.clip_b import ClipB, discriminator, standardised

PLUGIN = "algorithm.plugins=[clip_b]"


def entropy(logits: Tensor) -> float:
    p = [math.exp(float(x)) for x in logits]
    return -sum(x / sum(p) * math.log(x / sum(p)) for x in p)


def all_tokens(logits: Tensor) -> Tensor:
    """S of each token of a distribution."""
    return discriminator(logits.log_softmax(0), column([entropy(logits)] * len(logits)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(-4, 4), min_size=2, max_size=12))
def test_the_discriminator_s_mean_is_zero(values: list[float]) -> None:
    """The sum over tokens of p (H + log p); S has the p already."""
    assert float(all_tokens(column(values)).sum()) == pytest.approx(0, abs=1e-12)


def test_a_uniform_distribution_has_none() -> None:
    assert all_tokens(torch.zeros(7, dtype=torch.float64)).abs().max() < 1e-15
    assert discriminator(column([-math.inf, 0.0]), column([1.0, 0.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_table_by_finite_differences(sign: int) -> None:
    """What moving one token's logit by A does to the entropy of a small softmax."""
    logits = column([2.0, 1.0, 0.0, -1.0, -2.0])
    before, p = entropy(logits), logits.softmax(0)
    for token in range(5):
        likely = -math.log(float(p[token])) < before
        bumped = logits.clone()
        bumped[token] += sign * 1e-5
        change = entropy(bumped) - before
        assert (change < 0) == (likely == (sign > 0))
        assert change / 1e-5 == pytest.approx(-sign * float(all_tokens(logits)[token]), abs=1e-4)


def test_dropped_tokens_by_hand() -> None:
    p, h = [0.9, 0.3, 0.05, 0.01, 0.2, 0.2], [0.4, 0.9, 1.5, 0.5, 0.2, 0.2]
    a = [-1.0, 1.0, -1.0, -1.0, -1.0, 1.0]
    s = np.array([x * (y + math.log(x)) for x, y in zip(p, h, strict=True)])
    z = (s - s.mean()) / s.std()
    assert z[4] == z[5] < -0.9
    batch = batch_of([6])
    tokens = tokens_of(batch, logprob=[math.log(x) for x in p], entropy=h, advantage=a)
    np.testing.assert_allclose(standardised(discriminator(tokens.logprob, tokens.entropy)), z, rtol=1e-12)
    said = ClipB(0.9)(tokens, batch, MOMENT)
    assert said.weight is not None
    assert said.weight.tolist() == [1, 1, 1, 1, 0, 1]
    assert said.log == {"clip_b_fraction": pytest.approx(1 / 6)}
    every = ClipB(0.0)(tokens, batch, MOMENT).weight
    assert every is not None
    assert every.tolist() == [float(x > 0 or y >= 0) for x, y in zip(a, z, strict=True)]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0, 3))
def test_tokens_of_successes_are_never_dropped(seed: int, mu: float) -> None:
    g = torch.Generator().manual_seed(seed)
    batch = batch_of([9])
    columns = [(-3 * torch.rand(9, generator=g)).tolist(), torch.rand(9, generator=g).tolist()]
    advantage = torch.randn(9, generator=g).tolist()
    said = ClipB(mu)(tokens_of(batch, logprob=columns[0], entropy=columns[1], advantage=advantage), batch, MOMENT)
    assert said.weight is not None
    assert all(weight == 1 for weight, a in zip(said.weight.tolist(), advantage, strict=True) if a >= 0)


def test_equal_tokens_and_none_are_no_error() -> None:
    assert standardised(column([0.3] * 4)).tolist() == [0.0] * 4
    empty = batch_of([0])
    assert ClipB(1.0)(tokens_of(empty, logprob=[]), empty, MOMENT).log == {"clip_b_fraction": 0.0}


def test_it_keeps_entropy() -> None:
    """From rewards that are the throw of a coin."""
    none, some, most = (
        entropy_after(plain(), gate, iterations=60, seeds=8)[1] for gate in (None, ClipB(1.0), ClipB(0.5))
    )
    assert none + 0.05 < some < most


def test_micro_batches() -> None:
    options = (PLUGIN, "algorithm.settings.clip_b.mu=0.5")
    assert_micro_batches_change_nothing(*options)
    assert_changes_the_update(*options)
    assert not build("algorithm.name=grpo", PLUGIN, "algorithm.settings.clip_b.mu=.inf").parts.gates
