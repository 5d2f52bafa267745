"""Policy losses as the learner's term computes them, on random tokens."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palaestra.training.policy_loss import POLICY_LOSSES, Bounds, PolicyLoss
from palaestra.training.seams import Tokens
from palaestra.training.surrogate import balanced_surrogate, span_surrogate, surrogate

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)
F64 = torch.float64
BOUNDS = Bounds(0.2, 0.28, 3.0)
FREE = Bounds(1.0, math.inf, math.inf)


def tokens(seed: int, count: int = 14, spread: float = 0.5, *, constant: bool = False) -> Tokens:
    """Tokens of three rows, with turns that have gaps; `constant`: one advantage a row."""
    g = torch.Generator().manual_seed(seed)
    row = torch.randint(0, 3, (count,), generator=g).sort().values
    old = torch.randn(count, generator=g, dtype=F64) - 1.5
    advantage = torch.randn(count, generator=g, dtype=F64)
    return Tokens(
        logprob=(old + spread * torch.randn(count, generator=g, dtype=F64)).requires_grad_(),
        entropy=torch.rand(count, generator=g, dtype=F64),
        old_logprob=old,
        rollout_logprob=old,
        advantage=advantage[row] if constant else advantage,
        step_id=2 * torch.randint(0, 3, (count,), generator=g),
        row=row,
    )


def gradient(kind: str, at: Tokens, bounds: Bounds = BOUNDS, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Values, and the gradient of their weighted sum."""
    value = POLICY_LOSSES[kind].plugin(at, bounds).loss
    total = (value if weight is None else value * weight).sum()
    return value.detach(), torch.autograd.grad(total, at.logprob)[0]


def at_logprob(at: Tokens, logprob: Tensor) -> Tokens:
    return Tokens(logprob, at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, at.step_id, row=at.row)


@SETTINGS
@given(seed=SEEDS, kind=st.sampled_from([*POLICY_LOSSES]))
def test_on_policy_every_loss_is_the_policy_gradient(seed: int, kind: str) -> None:
    at = tokens(seed, spread=0.0)
    value, found = gradient(kind, at)
    torch.testing.assert_close(value, -at.advantage)
    torch.testing.assert_close(found, -at.advantage)
    result = POLICY_LOSSES[kind].plugin(at, BOUNDS)
    assert not result.clipped.any()
    assert not result.dual_clipped.any()


@SETTINGS
@given(seed=SEEDS, kind=st.sampled_from([*POLICY_LOSSES]))
def test_no_loss_has_a_gradient_to_anything_but_the_log_probs(seed: int, kind: str) -> None:
    at = tokens(seed)
    others = [column.requires_grad_() for column in (at.old_logprob, at.advantage, at.entropy, at.rollout_logprob)]
    total = PolicyLoss(kind, BOUNDS).value(replace(at, weight=torch.full_like(at.entropy, 0.5))).value.sum()
    assert torch.autograd.grad(total, others, allow_unused=True) == (None,) * 4


@SETTINGS
@given(seed=SEEDS, kind=st.sampled_from([*POLICY_LOSSES]), order=st.permutations(range(14)))
def test_the_order_of_tokens_and_the_numbers_of_rows_do_not_matter(seed: int, kind: str, order: list[int]) -> None:
    at, index = tokens(seed), torch.tensor(order)
    assert at.row is not None
    columns = [c[index] for c in (at.logprob.detach(), at.entropy, at.old_logprob, at.rollout_logprob, at.advantage)]
    columns[0].requires_grad_()
    other = Tokens(*columns, at.step_id[index], row=7 - 2 * at.row[index])  # type: ignore[arg-type]
    one, two = gradient(kind, at), gradient(kind, other)
    torch.testing.assert_close(two, tuple(x[index] for x in one))


@SETTINGS
@given(seed=SEEDS, kind=st.sampled_from(["gspo", "span_ratio"]))
def test_one_token_a_span_is_the_clipped_surrogate(seed: int, kind: str) -> None:
    at = tokens(seed)
    alone = torch.arange(14)
    single = Tokens(at.logprob, at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, alone, row=alone)
    assert all(torch.equal(a, b) for a, b in zip(gradient(kind, single), gradient("clip", at), strict=True))


@SETTINGS
@given(seed=SEEDS)
def test_gspo_is_constant_over_a_row_and_the_span_ratio_over_a_turn(seed: int) -> None:
    at = tokens(seed, constant=True)
    assert at.row is not None
    for kind, span in (("gspo", at.row), ("span_ratio", at.row * 100 + at.step_id)):
        value, found = gradient(kind, at)
        for number in span.unique():
            for column in (value, found):
                assert len(column[span == number].unique()) == 1
    one_turn = Tokens(
        at.logprob, at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, torch.zeros(14).long(), row=at.row
    )
    assert torch.equal(gradient("gspo", at)[1], gradient("span_ratio", one_turn)[1])


def slopes(objective: Callable[[Tensor], float], at: Tokens, h: float = 1e-6) -> list[float]:
    """Finite differences of an objective in each log-prob."""
    logprob, steps = at.logprob.detach(), h * torch.eye(len(at.logprob), dtype=F64)
    return [(objective(logprob + step) - objective(logprob - step)) / (2 * h) for step in steps]


@SETTINGS
@given(seed=SEEDS, kind=st.sampled_from(["gspo", "span_ratio"]))
def test_a_span_s_gradient_is_that_of_its_ratio(seed: int, kind: str) -> None:
    """`-A exp(mean(lp - old))`; each token counts once in its span, as GSPO's aggregation has it."""
    at = tokens(seed, constant=True)
    assert at.row is not None
    span = at.row if kind == "gspo" else at.row * 100 + at.step_id
    size = span.bincount()[span].double()
    _, found = gradient(kind, at, FREE, 1 / size)

    def objective(logprob: Tensor) -> float:
        drift = logprob - at.old_logprob
        parts = [span == number for number in span.unique()]
        return math.fsum(float(-at.advantage[p][0] * drift[p].mean().exp()) for p in parts)

    assert found.tolist() == pytest.approx(slopes(objective, at), abs=1e-7)


@SETTINGS
@given(seed=SEEDS)
def test_the_clip_s_gradient_is_that_of_its_value(seed: int) -> None:
    at = tokens(seed)
    objective = lambda logprob: float(gradient("clip", at_logprob(at, logprob.requires_grad_()))[0].sum())  # noqa: E731
    assert gradient("clip", at)[1].tolist() == pytest.approx(slopes(objective, at), abs=1e-7)


@SETTINGS
@given(seed=SEEDS)
def test_a_turn_s_ratio_does_not_depend_on_the_layout_of_rows(seed: int) -> None:
    at = tokens(seed)
    assert at.row is not None
    columns = at.logprob, at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, at.step_id
    step_rows = Tokens(*columns, row=at.row * 100 + at.step_id)
    assert all(
        torch.equal(a, b) for a, b in zip(gradient("span_ratio", at), gradient("span_ratio", step_rows), strict=True)
    )


@SETTINGS
@given(seed=SEEDS, dual=st.sampled_from([1.5, 3.0, math.inf]), low=st.floats(0.05, 1), high=st.floats(0.05, 0.5))
def test_entropy_balanced_clipping_changes_the_gradient_alone(seed: int, dual: float, low: float, high: float) -> None:
    at, bounds = tokens(seed), Bounds(low, high, dual)
    plain, ours = gradient("clip", at, bounds), gradient("entropy_balanced", at, bounds)
    assert torch.equal(ours[0], plain[0])
    ratio = (at.logprob.detach() - at.old_logprob).exp()
    preserved = (at.advantage > 0) & (ratio > 1 + high)
    assert torch.equal(ours[1][~preserved], plain[1][~preserved])
    torch.testing.assert_close(ours[1][preserved], -(1 + high) * at.advantage[preserved])
    assert not plain[1][preserved].any()
    factor = -ours[1] / at.advantage
    assert factor.ge(0).all()
    assert factor.le(max(1 + high, dual) + 1e-12).all()
    result = POLICY_LOSSES["entropy_balanced"].plugin(at, bounds)
    assert result.preserved is not None
    assert torch.equal(result.preserved, preserved)


@pytest.mark.parametrize("kind", [*POLICY_LOSSES])
@pytest.mark.parametrize("far", [30.0, -30.0, 800.0, -800.0])
def test_extreme_ratios_stay_finite(kind: str, far: float) -> None:
    at = tokens(3)
    moved = at_logprob(at, (at.old_logprob + far).requires_grad_())
    value, found = gradient(kind, moved, Bounds(0.2, 0.2, math.inf))
    assert value.isfinite().all()
    assert found.isfinite().all()


@SETTINGS
@given(seed=SEEDS, garbage=st.sampled_from([0.0, 1e6, math.inf, -math.inf]), kind=st.sampled_from(["span", "balanced"]))
def test_what_is_masked_out_cannot_leak(seed: int, garbage: float, kind: str) -> None:
    at = tokens(seed)
    mask = torch.rand(14, generator=torch.Generator().manual_seed(seed)) < 0.7
    function: Any = balanced_surrogate if kind == "balanced" else span_surrogate

    def results(fill: float) -> tuple[Tensor, Tensor]:
        logprob = torch.where(mask, at.logprob.detach(), fill).requires_grad_()
        advantage = torch.where(mask, at.advantage, 3.0)
        columns = [logprob, at.old_logprob, advantage, mask, *([at.row] if kind == "span" else [])]
        loss = function(*columns).loss
        return loss.detach(), torch.autograd.grad(loss.sum(), logprob)[0]

    for a, b in zip(results(0.5), results(garbage), strict=True):
        assert torch.equal(a, b)
        assert not a[~mask].any()


def test_empty_micro_batches_have_no_loss() -> None:
    nothing, whole = torch.zeros(0, dtype=F64), torch.zeros(0, dtype=torch.int64)
    empty = Tokens(nothing.clone().requires_grad_(), nothing, nothing, nothing, nothing, whole, row=whole)
    for kind in POLICY_LOSSES:
        assert PolicyLoss(kind).value(empty).value.shape == (0,)


def test_the_base_surrogate_is_the_function() -> None:
    at = tokens(0)
    every = torch.ones(14, dtype=torch.bool)
    expected = surrogate(at.logprob, at.old_logprob, at.advantage, every, clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    assert torch.equal(POLICY_LOSSES["clip"].plugin(at, BOUNDS).loss, expected.loss)
