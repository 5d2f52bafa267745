"""SIREN: the nucleus, the selection, the penalty and its gradient, the anchor."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gating import (
    assert_changes_the_update,
    assert_micro_batches_change_nothing,
    batch_of,
    column,
    slope,
    tokens_of,
)
from support.updates import MOMENT, learner, played, update
from torch import Tensor

from palaestra.training.first import First
from palaestra.training.nucleus import nucleus_entropy, selection
from palaestra.training.plugins.siren import ENTROPY, Anchored, AnchorPenalty, Settings
from palaestra.training.seams import Moment

PLUGIN = "algorithm.plugins=[siren]"
P = [0.4, 0.3, 0.2, 0.07, 0.03]


def entropy_of(weights: list[float]) -> float:
    total = sum(weights)
    return -sum(w / total * math.log(w / total) for w in weights)


def nucleus(logits: Tensor, top_p: float = 0.8, most: int = 10_000, crossing: bool = True) -> Tensor:
    return nucleus_entropy(logits, torch.zeros(len(logits), dtype=torch.int64), top_p, most, crossing)


@pytest.mark.parametrize(
    ("options", "inside"),
    [
        ({}, P[:3]),
        ({"crossing": False}, P[:2]),
        ({"top_p": 0.5}, P[:2]),
        ({"top_p": 0.35}, P[:1]),
        ({"top_p": 0.35, "crossing": False}, P[:1]),
        ({"top_p": 0.95, "most": 3}, P[:3]),
        ({"top_p": 1.0, "most": 2}, P),
    ],
)
def test_the_nucleus_by_hand(options: dict[str, Any], inside: list[float]) -> None:
    shuffled = column([P[i] for i in (3, 0, 4, 2, 1)]).log() - 7
    assert float(nucleus(shuffled[None], **options)) == pytest.approx(entropy_of(inside), abs=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.8, 1.0]))
def test_the_nucleus_of_a_masked_vocabulary_and_its_gradient(seed: int, top_p: float) -> None:
    """By finite differences; forbidden tokens have gradient 0."""
    logits = 2 * torch.randn(3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[:, 1] = logits[1, 4:] = -math.inf
    allowed = logits > -math.inf
    leaf = logits.clone().requires_grad_()
    value = nucleus(leaf, top_p)
    found = torch.autograd.grad(value.sum(), leaf)[0]
    assert bool(value.isfinite().all())
    assert not found[~allowed].any()
    expected = slope(lambda x: nucleus(torch.where(allowed, x, -math.inf), top_p).sum(), logits.nan_to_num(neginf=0.0))
    np.testing.assert_allclose(found, torch.where(allowed, expected, 0.0), atol=1e-7)
    if top_p == 1:
        plain = [entropy_of(row[row > -math.inf].softmax(0).tolist()) for row in logits]
        assert value.tolist() == pytest.approx(plain, abs=1e-9)


def test_the_selection_by_hand() -> None:
    """Trajectory 0 in two rows; 1 with one token above its quantile; 2 and 3 without any."""
    entropy = column([0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 0.7, 0.6, 0.6])
    traj = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 3, 3])
    assert float(np.quantile([0.1, 0.2, 0.3, 0.4, 0.5], 0.6)) == pytest.approx(0.34)
    found = selection(entropy, traj, 0.6)
    assert found.tolist() == pytest.approx([0, 0, 0, 0.25, 0.25, 0, 0.5, 0, 0, 0])
    every = selection(entropy, traj, 0.0)
    assert every.tolist() == pytest.approx([1 / 20] * 5 + [1 / 8] * 2 + [1 / 4] + [1 / 8] * 2)
    assert not len(selection(entropy[:0], traj[:0], 0.6))


def hbar(entropy: list[float], lengths: list[int], quantile: float) -> float:
    """Another way: a trajectory at a time."""
    means, start = [], 0
    for length in lengths:
        own = np.array(entropy[start : start + length])
        start += length
        above = own[own > np.quantile(own, quantile)] if quantile else own
        if len(above):
            means.append(above.mean())
    return float(np.mean(means)) if means else 0.0


LENGTHS = [4, 3, 1]
ENTROPIES = [0.1, 0.9, 0.4, 0.7, 0.3, 0.2, 0.8, 0.5]


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("anchor", [0.1, 2.0])
def test_the_penalty_and_its_gradient(quantile: float, anchor: float) -> None:
    batch = batch_of(LENGTHS)
    tokens = tokens_of(batch, logprob=[-1.0] * 8, extra={ENTROPY: ENTROPIES})
    said = Anchored(Settings(quantile=quantile, anchor=anchor), First())(tokens, batch, MOMENT)
    expected = hbar(ENTROPIES, LENGTHS, quantile)
    assert said.log == pytest.approx({"siren_entropy": expected, "siren_anchor": anchor})
    leaf = column(ENTROPIES).requires_grad_()
    bound = AnchorPenalty(0.3).bind(MOMENT, batch)
    value = bound.value(replace(tokens, extra={ENTROPY: leaf}, marks=said.marks)).value
    assert float(value.detach().sum()) == pytest.approx((expected - anchor) ** 2, rel=1e-12)
    assert bool((bound.weights(batch) == 0.3 * batch.mask.double()).all())
    found = torch.autograd.grad(value.sum(), leaf)[0]
    numeric = slope(lambda x: column([(hbar(x.tolist(), LENGTHS, quantile) - anchor) ** 2])[0], column(ENTROPIES))
    np.testing.assert_allclose(found, numeric, atol=1e-9)


def test_top_p_one_and_quantile_zero_are_the_plain_entropy() -> None:
    """Pulled to 0 with one trajectory alone, it is the square of the policy's mean entropy."""
    batch = played()
    options = "algorithm.settings.siren={top_p: 1, quantile: 0, anchor: 0}"
    result = update(learner("algorithm.name=grpo", PLUGIN, options), batch)[0]
    old = result.batch.old_entropy
    assert old is not None
    means = [float(old[row][batch.mask[row]].mean()) for row in range(len(batch.ids))]
    assert result.metrics["siren_entropy"] == pytest.approx(np.mean(means), rel=1e-5)
    assert result.metrics["siren"] == pytest.approx(np.mean(means) ** 2, rel=1e-5)


def test_the_anchor_is_the_first_iteration_s_and_has_no_pull_there() -> None:
    subject = learner("algorithm.name=grpo", PLUGIN, "algorithm.settings.siren.coeff=10")
    first, gradient = update(subject, played(), Moment(0, 10))
    grpo = update(learner("algorithm.name=grpo"), played(), Moment(0, 10))
    assert first.metrics["siren"] == 0
    assert first.metrics["siren_entropy"] == first.metrics["siren_anchor"]
    for name, expected in grpo[1].items():
        torch.testing.assert_close(gradient[name], expected, atol=1e-7, rtol=1e-5)
    saved = json.loads(json.dumps(subject.algorithm.state_dict()))
    assert saved["trackers"]["siren"] == {"value": first.metrics["siren_anchor"]}
    later = subject.update(played(1), Moment(1, 10)).metrics
    resumed = learner("algorithm.name=grpo", PLUGIN)
    resumed.algorithm.load_state_dict(saved)
    assert resumed.update(played(1), Moment(1, 10)).metrics["siren_anchor"] == later["siren_anchor"]
    assert later["siren_anchor"] == first.metrics["siren_anchor"] != later["siren_entropy"]
    assert (later["siren"] or 0) > 0


def test_the_update_pulls_towards_the_anchor_from_both_sides() -> None:
    for anchor, sign in ((0.0, -1), (20.0, 1)):
        options = f"algorithm.settings.siren={{coeff: 1, anchor: {anchor}}}"
        subject = learner("algorithm.name=grpo", "algorithm.normalise=mean", "optimiser.lr=1e-3", PLUGIN, options)
        before = subject.update(played(), MOMENT).metrics["siren_entropy"]
        after = subject.update(played(), MOMENT).metrics["siren_entropy"]
        assert before is not None
        assert after is not None
        assert (after - before) * sign > 0


def test_micro_batches() -> None:
    options = (PLUGIN, "algorithm.settings.siren={coeff: 0.1, anchor: 1, quantile: 0.5}")
    assert_micro_batches_change_nothing(*options)
    assert_changes_the_update(*options)


def test_a_batch_without_tokens_sets_no_anchor() -> None:
    empty = batch_of([0]).with_(extra={ENTROPY: torch.zeros(1, 1)})
    tokens = tokens_of(empty, logprob=[], extra={ENTROPY: []})
    first = First()
    assert Anchored(Settings(), first)(tokens, empty, MOMENT).log == {"siren_entropy": 0.0, "siren_anchor": 0.0}
    assert first.value is None
