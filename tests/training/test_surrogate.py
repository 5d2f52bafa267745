"""The clipped surrogate: regimes, gradients and garbage."""

import pytest
import torch
from torch import Tensor

from palaestra.training.surrogate import surrogate

F64 = torch.float64


def one(log_ratio: float, advantage: float, **options: float | None) -> tuple[float, float, bool, bool]:
    """Loss, its gradient, clipped, dual-clipped of a single token."""
    logprob = torch.tensor([[log_ratio - 1.0]], dtype=F64, requires_grad=True)
    mask = torch.ones(1, 1)
    old, gain = torch.full_like(logprob, -1.0), torch.full_like(logprob, advantage)
    result = surrogate(logprob, old.detach(), gain.detach(), mask, **options)
    (gradient,) = torch.autograd.grad(result.loss.sum(), logprob)
    return float(result.loss.detach()), float(gradient), bool(result.clipped), bool(result.dual_clipped)


def test_regimes() -> None:
    e = torch.e
    assert one(1.0, 2.0) == (-2.4, 0.0, True, False)
    assert one(-1.0, -2.0) == (1.6, 0.0, True, False)
    assert one(2.0, -2.0) == (6.0, 0.0, False, True)
    assert one(1.0, -2.0) == (pytest.approx(2 * e), pytest.approx(2 * e), False, False)
    assert one(-1.0, 2.0) == (pytest.approx(-2 / e), pytest.approx(-2 / e), False, False)
    assert one(2.0, -2.0, dual_clip=None) == (pytest.approx(2 * e**2), pytest.approx(2 * e**2), False, False)
    assert one(0.22, 1.0, clip_high=0.28)[2:] == (False, False)


def test_huge_log_ratios_are_bounded_and_have_no_gradient() -> None:
    loss, gradient, *_ = one(1e5, -1.0, dual_clip=None)
    assert loss == pytest.approx(torch.e**20)
    assert gradient == 0
    assert one(-1e5, 1.0)[:2] == (pytest.approx(-(torch.e**-20)), 0.0)


def columns(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logprob, old, advantage = (torch.randn(4, 6, generator=g, dtype=F64) for _ in range(3))
    return (logprob * 0.5).requires_grad_(), old * 0.5, advantage, torch.rand(4, 6, generator=g) < 0.7


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
def test_garbage_outside_the_mask(garbage: float) -> None:
    logprob, old, advantage, mask = columns(0)
    clean = surrogate(logprob, old, advantage, mask)
    dirty_input = torch.where(mask, logprob.detach(), garbage).requires_grad_()
    dirty = surrogate(
        dirty_input, torch.where(mask, old, -garbage), torch.where(mask, advantage, garbage), mask.float()
    )
    for name in ("loss", "ratio", "clipped", "dual_clipped"):
        torch.testing.assert_close(getattr(dirty, name), getattr(clean, name), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(dirty.loss.sum(), dirty_input)
    assert gradient[~mask].eq(0).all()
    torch.testing.assert_close(gradient, torch.autograd.grad(clean.loss.sum(), logprob)[0])


def test_gradient_by_finite_differences() -> None:
    logprob, old, advantage, mask = columns(1)
    assert torch.autograd.gradcheck(lambda x: surrogate(x, old, advantage, mask).loss, (logprob,))


def test_only_the_log_prob_has_a_gradient() -> None:
    logprob, old, advantage, mask = columns(2)
    old, advantage = old.requires_grad_(), advantage.requires_grad_()
    result = surrogate(logprob, old, advantage, mask)
    gradients = torch.autograd.grad(result.loss.sum(), (old, advantage), allow_unused=True)
    assert gradients == (None, None)
    assert not result.ratio.requires_grad


def test_a_row_advantage_spreads_over_its_tokens() -> None:
    logprob, old, advantage, mask = columns(3)
    narrow = surrogate(logprob, old, advantage[:, :1], mask)
    wide = surrogate(logprob, old, advantage[:, :1].expand(4, 6), mask)
    assert torch.equal(narrow.loss, wide.loss)
