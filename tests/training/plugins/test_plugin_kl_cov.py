"""KL-Cov as a gate and a term: which tokens are held, and with which gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.updates import assert_same, build, learner, played, update

from palaestra.errors import ConfigError
from palaestra.training.covariance import kl_cov
from palaestra.training.plugins.kl_cov import MARK, Hold, KLCov
from palaestra.training.policy_loss import PolicyLoss
from palaestra.training.seams import Moment, Tokens

CHECK = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)
BATCH, MOMENT = played(), Moment(3, 10, seed=1)
OWN = "algorithm.settings.kl_cov"
HELD = ["algorithm.name=grpo", "algorithm.plugins=[kl_cov]"]
UNCLIPPED = ["algorithm.name=grpo", "algorithm.clip_low=1", "algorithm.clip_high=.inf", "algorithm.dual_clip=.inf"]


def tokens(seed: int, count: int = 40) -> Tokens:
    """Random ones, in float64, with gradient."""
    g = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(count, generator=g, dtype=torch.float64)
    logprob = old + 0.5 * torch.randn(count, generator=g, dtype=torch.float64)
    advantage = 2 * torch.randn(count, generator=g, dtype=torch.float64)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Tokens(logprob.requires_grad_(), -old, old, old, advantage, zeros, row=zeros)


def gated(at: Tokens, rate: float) -> Tokens:
    """With what the gate says."""
    said = KLCov(rate)(replace(at, logprob=at.logprob.detach()), BATCH, MOMENT)
    assert said.weight is None
    return replace(at, unclipped=said.unclipped, marks=said.marks)


@CHECK
@given(seed=SEEDS, rate=st.floats(0.001, 1))
def test_gate_and_term_are_the_equation(seed: int, rate: float) -> None:
    at = gated(tokens(seed), rate)
    expected = kl_cov(at.logprob, at.old_logprob, at.advantage, torch.ones(40), rate=rate, coeff=0.5)
    loss = PolicyLoss().value(at).value + 0.5 * Hold(0.5, "token-mean").value(at).value
    torch.testing.assert_close(loss, expected.loss)
    assert torch.equal(at.marks[MARK], expected.picked)
    assert int(at.marks[MARK].sum()) == max(1, int(rate * 40))


@CHECK
@given(seed=SEEDS)
def test_the_gradient_is_the_finite_difference(seed: int) -> None:
    at = gated(tokens(seed), 0.3)

    def value(logprob: torch.Tensor) -> torch.Tensor:
        moved = replace(at, logprob=logprob)
        return (PolicyLoss().value(moved).value + Hold(1.0, "token-mean").value(moved).value).sum()

    (gradient,) = torch.autograd.grad(value(at.logprob), at.logprob)
    for place in range(0, 40, 5):
        step = torch.zeros_like(gradient)
        step[place] = 1e-7
        with torch.no_grad():
            slope = (value(at.logprob + step) - value(at.logprob - step)) / 2e-7
        assert float(gradient[place]) == pytest.approx(float(slope), abs=1e-5, rel=1e-5)


def test_equals_go_by_their_place() -> None:
    at = tokens(0, 4)
    at = replace(at, advantage=torch.tensor([1.0, -1.0, 1.0, -1.0]), logprob=torch.tensor([1.0, -1.0, 1.0, -1.0]))
    assert KLCov(0.75)(at, BATCH, MOMENT).marks[MARK].tolist() == [True, True, True, False]


def test_bad_numbers_come_last_and_no_token_is_fine() -> None:
    at = tokens(0)
    at = replace(at, logprob=at.logprob.detach().clone())
    at.logprob[3] = -math.inf
    held = KLCov(0.5)(at, BATCH, MOMENT).marks[MARK]
    assert int(held.sum()) == 20
    assert not Hold(1.0, "token-mean").value(replace(at, marks={MARK: held})).value.isnan().any()
    assert KLCov(0.5)(tokens(0, 0), BATCH, MOMENT).log == {"kl_cov_held": 0.0}


# In an update


def test_without_penalty_it_is_the_policy_gradient_without_clip() -> None:
    ours = update(learner(*HELD, f"{OWN}.coeff=0", mini_batches=4, epochs=2), played())
    base = update(learner(*UNCLIPPED, mini_batches=4, epochs=2), played())
    assert_same(ours[1], base[1], atol=0.0)


def test_in_the_first_step_the_term_is_nothing() -> None:
    ours, base = update(learner(*HELD, f"{OWN}.rate=0.5"), played()), update(learner("algorithm.name=grpo"), played())
    assert_same(ours[1], base[1])
    assert ours[0].metrics["kl_cov"] == pytest.approx(0, abs=1e-6)


def test_later_it_holds_the_policy() -> None:
    options = ["optimiser.lr=3e-3", f"{OWN}.rate=1.0"]
    drifts = []
    for coeff in (0.001, 30.0):
        found = update(learner(*HELD, *options, f"{OWN}.coeff={coeff}", mini_batches=2, epochs=4), played())[0]
        drifts.append(found.metrics["kl_cov"])
    assert drifts[0]
    assert drifts[1]
    assert drifts[1] < drifts[0]


def test_micro_batches_hold_the_same() -> None:
    options = [*HELD, f"{OWN}.rate=0.3", "optimiser.lr=3e-3"]
    whole = update(learner(*options, mini_batches=2, micro_batch_tokens=10**6), played())
    for size in (30, 60):
        parts = update(learner(*options, mini_batches=2, micro_batch_tokens=size), played())
        assert_same(parts[1], whole[1], atol=3e-6)
        assert parts[0].metrics["kl_cov_held"] == whole[0].metrics["kl_cov_held"]


def test_the_released_codes_scope_holds_some_of_every_micro_batch() -> None:
    def held(*options: str) -> float | None:
        subject = learner(*HELD, f"{OWN}.rate=1e-9", *options, micro_batch_tokens=40)
        return update(subject, played())[0].metrics["kl_cov_held"]

    assert held() == 1
    assert (held(f"{OWN}.scope=micro") or 0) > 1


def test_rows_without_advantage_have_a_gradient_here() -> None:
    assert not build(*HELD).drop_uniform_groups
    assert build(*HELD, f"{OWN}.rate=0").drop_uniform_groups
    with pytest.raises(ConfigError, match="drop_uniform_groups"):
        build(*HELD, "algorithm.drop_uniform_groups=true")
