"""Aggregation by weights: what each mode counts, and what can never leak."""

import pytest
import torch

from palaestra.training.aggregate import MODES, aggregate, token_weights, weighted_sum

MASK = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
STEP = torch.tensor([[0, 0, -1, 1], [-1, -1, -1, -1], [-1, 0, -1, -1]])


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("token-mean", (1 / 4, 1 / 4)),
        ("seq-mean-token-sum", (1 / 2, 1 / 2)),
        ("seq-mean-token-mean", (1 / 6, 1 / 2)),
        ("seq-mean-token-sum-norm", (1 / 4, 1 / 4)),
        ("dr-grpo-mean", (1 / 8, 1 / 8)),
    ],
)
def test_weights_by_hand(mode: str, rows: tuple[float, float]) -> None:
    expected = MASK.double() * torch.tensor([[rows[0]], [0.0], [rows[1]]], dtype=torch.float64)
    torch.testing.assert_close(token_weights(MASK, mode), expected)


def test_nested_weights_by_hand() -> None:
    expected = torch.tensor([[1 / 8, 1 / 8, 0, 1 / 4], [0, 0, 0, 0], [0, 1 / 2, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(token_weights(MASK, "traj-turn-token", step_id=STEP), expected)


def test_a_turn_may_be_split_over_rows() -> None:
    """Rows 0 and 2 are one trajectory; the token of row 2 belongs to the turn that row 0 began."""
    weights = token_weights(MASK, "traj-turn-token", step_id=STEP, traj=torch.tensor([7, 3, 7]))
    expected = torch.tensor([[1 / 6, 1 / 6, 0, 1 / 2], [0, 0, 0, 0], [0, 1 / 6, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_train_is_zero_and_not_nan(mode: str) -> None:
    x = torch.full((2, 3), torch.nan, requires_grad=True)
    value = aggregate(x, torch.zeros(2, 3), mode, step_id=torch.full((2, 3), -1))
    assert value == 0
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.eq(0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("garbage", [1e30, torch.inf, -torch.inf, torch.nan])
def test_masked_garbage_never_leaks(mode: str, garbage: float) -> None:
    clean = torch.arange(12.0).view(3, 4).requires_grad_()
    dirty = torch.where(MASK, clean.detach(), garbage).requires_grad_()
    values = [aggregate(x, MASK, mode, step_id=STEP) for x in (clean, dirty)]
    assert values[0] == values[1]
    gradients = [torch.autograd.grad(v, x)[0] for v, x in zip(values, (clean, dirty), strict=True)]
    assert gradients[1][~MASK].eq(0).all()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_is_the_weight(mode: str) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    options = {"step_id": STEP, "constant": 5.0}
    (gradient,) = torch.autograd.grad(aggregate(x, MASK, mode, **options), x)
    torch.testing.assert_close(gradient, token_weights(MASK, mode, **options))


def test_float32_losses_are_summed_in_float64() -> None:
    x = torch.full((1, 1000), 0.1)
    value = weighted_sum(x, torch.ones(1, 1000), torch.ones(1, 1000, dtype=torch.float64))
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(1000 * float(x[0, 0]), rel=1e-12)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown aggregation 'mean'; known: token-mean"):
        token_weights(MASK, "mean")
    with pytest.raises(ValueError, match="needs step_id"):
        token_weights(MASK, "traj-turn-token")
