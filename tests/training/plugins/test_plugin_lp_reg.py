"""Lp-Reg: the proxy, the choice, the loss."""

from __future__ import annotations

import math
from dataclasses import replace

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

from palaestra.training.plugins.lp_reg import CHOSEN, PROXY, ProxyDivergence, RareTokens, min_p_proxy
from palaestra.training.policy_loss import PolicyLoss
from palaestra.training.seams import Tokens

PLUGIN = "algorithm.plugins=[lp_reg]"
P = [0.6, 0.3, 0.09, 0.009, 0.001]


def proxies(p: list[float], kappa: float) -> list[float]:
    """By the formula, a token at a time."""
    kept = [x for x in p if x >= kappa * max(p)]
    return [math.log(x / sum(kept)) if x >= kappa * max(p) else -math.inf for x in p]


@pytest.mark.parametrize("kappa", [0.0, 0.01, 0.02, 0.2, 1.0])
def test_the_proxy_by_hand(kappa: float) -> None:
    logits = column(P).log().expand(5, 5) + 3
    found = min_p_proxy(logits, torch.arange(5), kappa)
    assert found.tolist() == pytest.approx(proxies(P, kappa), rel=1e-9, abs=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.001, 0.999))
def test_the_proxy_is_a_distribution_that_knows_forbidden_tokens(seed: int, kappa: float) -> None:
    logits = 3 * torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[2] = -math.inf
    found = min_p_proxy(logits.expand(6, 6), torch.arange(6), kappa)
    assert float(found.exp().sum()) == pytest.approx(1)
    assert found[2] == -math.inf
    above = found > -math.inf
    assert bool((found[above] >= logits.log_softmax(0)[above] - 1e-12).all())


LOGPROB = [-5.0, -4.0, -3.0, -2.0, -1.0, -4.5, -6.0, -0.5]
ADVANTAGE = [-1.0, -1.0, -1.0, -1.0, -2.0, 1.0, -0.5, -1.0]
BETTER = [-4.9, -3.8, -2.9, -1.9, -0.9, -4.4, -math.inf, -0.4]


def chosen(rho: float, **options: bool) -> list[bool]:
    batch = batch_of([8])
    tokens = tokens_of(batch, logprob=LOGPROB, advantage=ADVANTAGE, old_extra={PROXY: BETTER})
    said = RareTokens(rho, **options)(tokens, batch, MOMENT)
    assert said.unclipped is said.marks[CHOSEN]
    assert said.weight is None
    return said.marks[CHOSEN].tolist()  # type: ignore[no-any-return]


def test_the_choice_by_hand() -> None:
    """Seven tokens have a negative advantage, of which the rarest is below the floor."""
    assert chosen(3 / 7) == [True, True, False, False, False, False, False, False]
    assert chosen(1.0) == [True, True, True, True, True, False, False, True]
    assert chosen(0.01) == [False] * 8
    assert chosen(2 / 7) == [True] + [False] * 7
    assert chosen(0.2, skip_single=True) == [False] * 8
    assert chosen(0.3, skip_single=True) == [True] + [False] * 7


def example() -> Tokens:
    """Off-policy, with ratios beyond every clip."""
    batch = batch_of([8])
    old = [x - shift for x, shift in zip(LOGPROB, [1.5, -1.0, 0.1, 0.3, -0.4, 0.9, 2.0, 0.0], strict=True)]
    tokens = tokens_of(batch, logprob=LOGPROB, old_logprob=old, advantage=ADVANTAGE, old_extra={PROXY: BETTER})
    said = RareTokens(3 / 7)(tokens, batch, MOMENT)
    return replace(tokens, unclipped=said.unclipped, marks=said.marks)


def loss(tokens: Tokens, logprob: Tensor, beta: float = 0.5) -> Tensor:
    """The policy loss and the term, summed over tokens."""
    tokens = replace(tokens, logprob=logprob)
    term = ProxyDivergence(beta, "token-mean").value(tokens)
    return PolicyLoss().value(tokens).value + beta * term.value


def test_the_loss_by_hand() -> None:
    tokens = example()
    expected = []
    for place, (lp, a) in enumerate(zip(LOGPROB, ADVANTAGE, strict=True)):
        ratio = math.exp(lp - float(tokens.old_logprob[place]))
        if place < 2:
            d = BETTER[place] - lp
            expected.append(-a * ratio + 0.5 * (math.exp(d) - d - 1))
        else:
            clipped = max(-a * ratio, -a * min(max(ratio, 0.8), 1.2))
            expected.append(min(clipped, -3 * a) if a < 0 else clipped)
    assert loss(tokens, tokens.logprob).tolist() == pytest.approx(expected, rel=1e-12)
    assert expected[0] == pytest.approx(math.exp(1.5) + 0.5 * (math.exp(0.1) - 1.1))


def test_the_gradient_by_finite_differences() -> None:
    tokens = example()
    at = tokens.logprob.clone().requires_grad_()
    found = torch.autograd.grad(loss(tokens, at).sum(), at)[0]
    expected = slope(lambda x: loss(tokens, x).sum(), tokens.logprob)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    only = torch.autograd.grad(ProxyDivergence(1.0, "token-mean").value(replace(tokens, logprob=at)).value.sum(), at)[0]
    assert only.tolist() == pytest.approx([1 - math.exp(0.1), 1 - math.exp(0.2), *[0.0] * 6])
    assert not only[2:].any()


def test_the_term_is_zero_at_the_proxy() -> None:
    tokens = example()
    at = column([-4.9, -3.8, *LOGPROB[2:]]).requires_grad_()
    value = ProxyDivergence(1.0, "token-mean").value(replace(tokens, logprob=at)).value
    assert value.abs().max() < 1e-15
    assert not torch.autograd.grad(value.sum(), at)[0].any()


def test_chosen_tokens_change_the_update_only_by_the_term_while_on_policy() -> None:
    """Without a divergence and with ratios 1 the clip makes no difference."""
    batch = played()
    without = update(learner("algorithm.name=grpo", PLUGIN, "algorithm.settings.lp_reg={rho: 1, beta: 0}"), batch)
    grpo = update(learner("algorithm.name=grpo"), batch)
    for name, gradient in grpo[1].items():
        torch.testing.assert_close(without[1][name], gradient, atol=1e-7, rtol=1e-5)
    options = ("algorithm.name=grpo", PLUGIN, "algorithm.settings.lp_reg={rho: 1, kappa: 0.6}")
    strong = update(learner(*options), batch)
    assert 0 < (strong[0].metrics["lp_reg_fraction"] or 0) < 1
    assert (strong[0].metrics["lp_reg"] or 0) > 0


def test_micro_batches() -> None:
    options = (PLUGIN, "algorithm.settings.lp_reg={rho: 0.5, kappa: 0.7}")
    assert_micro_batches_change_nothing(*options)
    assert_changes_the_update(*options)


def test_no_negative_advantage_and_no_token_are_no_error() -> None:
    batch = batch_of([2])
    tokens = tokens_of(batch, logprob=[-1.0, -2.0], old_extra={PROXY: [0.0, 0.0]})
    assert not RareTokens(0.5)(tokens, batch, MOMENT).marks[CHOSEN].any()
    empty = batch_of([0])
    nothing = tokens_of(empty, logprob=[], old_extra={PROXY: []})
    assert RareTokens(0.5)(nothing, empty, MOMENT).log == {"lp_reg_fraction": 0.0}
