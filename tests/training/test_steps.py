"""Token to turn and back."""

import torch

from palaestra.training.steps import broadcast_steps, step_mean

STEP = torch.tensor([[0, 0, -1, 2], [-1, -1, -1, -1]])


def test_missing_turns_have_length_zero() -> None:
    mean, length = step_mean(torch.tensor([[1.0, 3.0, torch.nan, 5.0], [torch.inf] * 4]), STEP)
    assert mean.tolist() == [[2.0, 0.0, 5.0], [0.0, 0.0, 0.0]]
    assert length.tolist() == [[2, 0, 1], [0, 0, 0]]


def test_a_mask_narrows_the_turn() -> None:
    x, mask = torch.tensor([[1.0, 3.0, 9.0, 5.0], [9.0] * 4]), torch.tensor([[1, 0, 1, 1], [1] * 4])
    mean, length = step_mean(x, STEP, mask)
    assert mean[0].tolist() == [1.0, 0.0, 5.0]
    assert length[0].tolist() == [1, 0, 1]


def test_there_and_back() -> None:
    mean = torch.tensor([[2.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    assert broadcast_steps(mean, STEP).tolist() == [[2.0, 2.0, 0.0, 5.0], [0.0] * 4]
    assert broadcast_steps(torch.tensor([1.0, 2.0, 3.0]), STEP)[0].tolist() == [1.0, 1.0, 0.0, 3.0]


def test_gradient_passes_to_the_tokens_of_the_turn() -> None:
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: broadcast_steps(step_mean(v, STEP).mean, STEP), (x,))
    (gradient,) = torch.autograd.grad(step_mean(x, STEP).mean.sum(), x)
    assert gradient.tolist() == [[0.5, 0.5, 0.0, 1.0], [0.0] * 4]


def test_no_turns_at_all() -> None:
    nothing = torch.full((2, 3), -1)
    mean, length = step_mean(torch.ones(2, 3), nothing)
    assert mean.shape == length.shape == (2, 0)
    assert broadcast_steps(mean, nothing).eq(0).all()
