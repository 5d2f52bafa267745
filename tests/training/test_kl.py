"""KL estimators."""

import pytest
import torch

from palaestra.training.kl import kl_estimate


@pytest.mark.parametrize("kind", ["k1", "k2", "k3", "abs"])
def test_gradient_by_finite_differences_and_none_to_the_reference(kind: str) -> None:
    logprob = torch.tensor([-1.0, -0.2, -3.0], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([-1.1, -0.9, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: kl_estimate(x, ref, kind), (logprob,))
    (gradient,) = torch.autograd.grad(kl_estimate(logprob, ref, kind).sum(), ref, allow_unused=True)
    assert gradient is None


def test_k3_is_bounded_without_a_value_clip_too() -> None:
    logprob = torch.tensor([-500.0], dtype=torch.float64, requires_grad=True)
    value = kl_estimate(logprob, torch.zeros(1, dtype=torch.float64), "k3", value_clip=None)
    assert float(value.detach()) == pytest.approx(torch.e**20 - 21)
    assert torch.autograd.grad(value.sum(), logprob)[0] == 0


def test_unknown_estimator() -> None:
    with pytest.raises(ValueError, match="unknown KL estimator 'k4'"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")
