"""Weights for the engine's and the learner's probabilities differing."""

import pytest
import torch

from palaestra.training.importance import effective_sample_size, importance_ratio, truncated_importance

OLD = torch.tensor([[-1.0, -2.0, 5.0], [9.0, 9.0, 9.0]])
ROLLOUT = torch.tensor([[-1.5, -1.0, -5.0], [-9.0, -9.0, -9.0]])
MASK = torch.tensor([[1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
def test_a_row_without_tokens_weighs_nothing_on_tokens(level: str) -> None:
    weight = truncated_importance(OLD, ROLLOUT, MASK, level=level)
    assert weight[1].eq(0).all()
    assert weight[0, 2] == 0
    assert weight.dtype == torch.float64
    if level != "token":
        assert importance_ratio(OLD, ROLLOUT, MASK, level)[1] == 1


def test_levels_by_hand() -> None:
    half = torch.tensor(-0.5, dtype=torch.float64).exp()
    sequence = truncated_importance(OLD, ROLLOUT, MASK, level="sequence")
    torch.testing.assert_close(sequence[0, :2], half.expand(2))
    geometric = truncated_importance(OLD, ROLLOUT, MASK, level="geometric")
    torch.testing.assert_close(geometric[0, :2], half.sqrt().expand(2))
    dropped = truncated_importance(OLD, ROLLOUT, MASK, level="sequence", mask_range=(0.7, 2.0))
    assert dropped.eq(0).all()


def test_geometric_is_not_truncated() -> None:
    weight = truncated_importance(torch.full((1, 2), 2.0), torch.zeros(1, 2), torch.ones(1, 2), level="geometric")
    torch.testing.assert_close(weight, torch.full((1, 2), torch.e**2, dtype=torch.float64))


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
def test_garbage_outside_the_mask(garbage: float) -> None:
    dirty = torch.where(MASK.bool(), OLD, garbage)
    torch.testing.assert_close(truncated_importance(dirty, ROLLOUT, MASK), truncated_importance(OLD, ROLLOUT, MASK))


def test_huge_differences_stay_finite() -> None:
    old = torch.tensor([[500.0, -500.0]], requires_grad=True)
    weight = truncated_importance(old, torch.zeros(1, 2), torch.ones(1, 2), cap=None)
    assert weight.isfinite().all()
    assert weight[0].tolist() == pytest.approx([torch.e**20, torch.e**-20])
    assert not weight.requires_grad


def test_all_weights_dropped() -> None:
    weight = truncated_importance(OLD, ROLLOUT, MASK, mask_range=(5.0, 6.0), normalise=True)
    assert weight.eq(0).all()
    assert effective_sample_size(weight, MASK) == 0.0
    assert effective_sample_size(torch.ones(2, 3), torch.zeros(2, 3)) == 0.0


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match="unknown level 'turn'"):
        importance_ratio(OLD, ROLLOUT, MASK, "turn")
