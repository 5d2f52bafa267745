"""Clip-Cov as a gate: which tokens sit out, and that the rest trains as before."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.updates import assert_same, learner, played, update

from palaestra.training.batch import Batch
from palaestra.training.covariance import covariance
from palaestra.training.learner import Learner
from palaestra.training.plugins.clip_cov import ClipCov
from palaestra.training.policy_loss import Bounds
from palaestra.training.seams import Moment, Tokens

CHECK = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)
SHIFTS = st.floats(-5, 5)
BATCH, MOMENT = played(), Moment(3, 10, seed=1)
BOUNDS = Bounds(0.2, 0.28, 10.0)
OWN = "algorithm.settings.clip_cov"
GATED = ["algorithm.name=grpo", "algorithm.plugins=[clip_cov]"]
WIDE = [f"{OWN}.low=0", f"{OWN}.high=.inf", f"{OWN}.rate=0.3"]


def tokens(seed: int, count: int = 40) -> Tokens:
    """Random ones, in float64."""
    g = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(count, generator=g, dtype=torch.float64)
    logprob = old + 0.2 * torch.randn(count, generator=g, dtype=torch.float64)
    advantage = 2 * torch.randn(count, generator=g, dtype=torch.float64)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Tokens(logprob, -logprob, old, old, advantage, zeros, row=zeros)


def shifted(at: Tokens, advantage: float = 0.0, logprob: float = 0.0) -> Tokens:
    """Log-probs of both policies move together, so that ratios stay."""
    columns = at.entropy, at.old_logprob + logprob, at.rollout_logprob, at.advantage + advantage, at.step_id
    return Tokens(at.logprob + logprob, *columns, row=at.row)


@CHECK
@given(seed=SEEDS, rate=st.floats(0.001, 1))
def test_it_picks_that_many_of_the_eligible(seed: int, rate: float) -> None:
    at = tokens(seed)
    said = ClipCov(rate, 0.5, 5.0, BOUNDS)(at, BATCH, MOMENT)
    value = covariance(at.advantage, at.logprob, torch.ones(40)).value
    ratio = (at.logprob - at.old_logprob).exp()
    clipped = ((at.advantage > 0) & (ratio > 1.28)) | ((at.advantage < 0) & (ratio < 0.8))
    eligible = ~clipped & (value > 0.5) & (value < 5)
    assert said.weight is not None
    picked = said.weight == 0
    assert not bool((picked & ~eligible).any())
    assert said.log == {"clip_cov_eligible": int(eligible.sum()), "clip_cov_picked": int(picked.sum())}
    assert int(picked.sum()) == min(int(eligible.sum()), max(1, int(rate * 40)))
    assert set(said.weight.tolist()) <= {0.0, 1.0}


@CHECK
@given(seed=SEEDS, logprob=SHIFTS)
def test_shifts_and_order_leave_eligibility_alone(seed: int, logprob: float) -> None:
    at, gate = tokens(seed), ClipCov(0.1, 0.5, 5.0, BOUNDS)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    columns = (x[order] for x in (at.logprob, at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, at.step_id))
    other = Tokens(*columns, row=at.row)
    counts = [gate(each, BATCH, MOMENT).log["clip_cov_eligible"] for each in (at, shifted(at, 0, logprob), other)]
    assert len(set(counts)) == 1


@CHECK
@given(seed=SEEDS)
def test_a_place_in_training_has_its_pick(seed: int) -> None:
    at, gate = tokens(seed), ClipCov(0.1, -math.inf, math.inf, BOUNDS)
    weights = [
        gate(at, BATCH, Moment(i, 9, s, k)).weight
        for i, s, k in ((0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    first, same, *others = (w for w in weights if w is not None)
    assert torch.equal(first, same)
    assert any(not torch.equal(first, other) for other in others)


def test_the_present_policys_log_probs_decide() -> None:
    at = tokens(0)
    later = Tokens(at.old_logprob, at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, at.step_id, row=at.row)
    gate = ClipCov(1.0, 0.2, math.inf, BOUNDS)
    one, other = gate(at, BATCH, MOMENT).weight, gate(later, BATCH, MOMENT).weight
    assert one is not None
    assert other is not None
    assert not torch.equal(one, other)


@pytest.mark.parametrize("count", [0, 1])
def test_no_token_and_one_token(count: int) -> None:
    said = ClipCov(0.5, 0.0, math.inf, BOUNDS)(tokens(0, count), BATCH, MOMENT)
    assert said.weight is not None
    assert said.weight.tolist() == [1.0] * count


def test_what_is_no_number_is_never_eligible() -> None:
    at = tokens(0)
    at.logprob[3] = -math.inf
    said = ClipCov(1.0, 0.0, math.inf, BOUNDS)(at, BATCH, MOMENT)
    assert said.weight is not None
    assert bool((said.weight == 1).all())


# In an update


def test_with_nothing_eligible_it_is_the_base_bit_for_bit() -> None:
    for options in ([f"{OWN}.low=1e6", f"{OWN}.high=.inf"], [f"{OWN}.rate=0"]):
        ours = update(learner(*GATED, *options, mini_batches=2), played())
        base = update(learner("algorithm.name=grpo", mini_batches=2), played())
        assert_same(ours[1], base[1], atol=0.0)
        assert ours[0].metrics["loss"] == base[0].metrics["loss"]


def test_equal_advantages_drop_nothing() -> None:
    batch = played()
    subject = learner("algorithm.name=reinforce", "algorithm.plugins=[clip_cov]", *WIDE)
    metrics = subject.update(batch.with_(reward=torch.ones_like(batch.reward)), MOMENT).metrics
    assert metrics["clip_cov_eligible"] == 0


def test_micro_batches_pick_the_same() -> None:
    whole = update(learner(*GATED, *WIDE, mini_batches=2, micro_batch_tokens=10**6), played())
    for size in (30, 60):
        parts = update(learner(*GATED, *WIDE, mini_batches=2, micro_batch_tokens=size), played())
        assert_same(parts[1], whole[1])
        assert parts[0].metrics["clip_cov_picked"] == whole[0].metrics["clip_cov_picked"]


def test_the_released_codes_scope_picks_in_every_micro_batch() -> None:
    def picked(*options: str) -> float | None:
        subject = learner(*GATED, *WIDE, f"{OWN}.rate=1e-9", *options, micro_batch_tokens=40)
        return update(subject, played())[0].metrics["clip_cov_picked"]

    assert picked() == 1
    assert (picked(f"{OWN}.scope=micro") or 0) > 1


def test_a_picked_token_has_no_gradient_and_counts_in_denominators() -> None:
    """All tokens but the picked keep their gradients: a policy loss with weights, written out."""
    subject: Learner = learner(*GATED, *WIDE)
    base = learner("algorithm.name=grpo")
    seen: list[tuple[Batch, Tokens]] = []
    gate = subject.algorithm.parts.gates[0]
    term = base.algorithm.bind(MOMENT, played())[0]
    ours = subject.algorithm.bind(MOMENT, played())[0]
    at = tokens(1)
    said = gate(at, BATCH, MOMENT)
    seen.append((BATCH, at))
    leaf = at.logprob.clone().requires_grad_()
    columns = at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, at.step_id
    gradients = [
        torch.autograd.grad(each.value(Tokens(leaf, *columns, weight=weight, row=at.row)).value.sum(), leaf)[0]
        for each, weight in ((ours, said.weight), (term, None))
    ]
    assert said.weight is not None
    assert torch.equal(gradients[0], torch.where(said.weight == 0, 0.0, gradients[1]))
    assert torch.equal(ours.weights(BATCH), term.weights(BATCH))


@pytest.mark.parametrize("loss", ["gspo", "span_ratio", "entropy_balanced"])
def test_it_goes_with_every_policy_loss(loss: str) -> None:
    metrics = update(learner(*GATED, *WIDE, f"algorithm.policy_loss={loss}", mini_batches=2), played())[0].metrics
    assert metrics["clip_cov_picked"]
