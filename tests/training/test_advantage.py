"""Group-relative advantage: weighting, singletons, groups without spread."""

import pytest
import torch
from torch import Tensor

from palaestra.training.advantage import group_advantage


def rows(*triples: tuple[float, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    reward, group, traj = zip(*triples, strict=True)
    return torch.tensor(reward, dtype=torch.float64), torch.tensor(group), torch.tensor(traj)


@pytest.mark.parametrize("normalise", ["std", "popstd", "mean", "rloo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, 9.9, -1e6 / 3])
def test_equal_rewards_give_exactly_zero(normalise: str, dtype: torch.dtype, value: float) -> None:
    reward = torch.full((8,), value, dtype=dtype)
    result = group_advantage(reward, torch.zeros(8).long(), torch.arange(8), normalise=normalise)
    assert result.dtype == torch.float64
    assert result.eq(0).all()


def test_a_group_of_one() -> None:
    reward, group, traj = rows((3.0, 5, 0), (1.0, 6, 1), (0.0, 6, 2))
    for normalise in ("std", "popstd", "mean", "rloo"):
        assert group_advantage(reward, group, traj, normalise=normalise)[0] == 0
    assert float(group_advantage(reward, group, traj, singleton="raw")[0]) == pytest.approx(3 / (1 + 1e-6))
    assert group_advantage(reward, group, traj, normalise="mean", singleton="raw")[0] == 3


def test_singleton_depends_on_what_an_entry_is() -> None:
    """One trajectory of two rows is alone by trajectory, and two equal entries by row: 0 in both."""
    columns = rows((3.0, 0, 0), (3.0, 0, 0))
    assert group_advantage(*columns, weighting="trajectory").eq(0).all()
    assert group_advantage(*columns, weighting="row", singleton="raw").eq(0).all()
    assert group_advantage(*columns, weighting="trajectory", singleton="raw").gt(2.9).all()


def test_long_trajectories_weigh_more_only_by_row() -> None:
    columns = rows((1.0, 0, 0), (1.0, 0, 0), (1.0, 0, 0), (0.0, 0, 1))
    by_trajectory = group_advantage(*columns, normalise="mean")
    by_row = group_advantage(*columns, normalise="mean", weighting="row")
    torch.testing.assert_close(by_trajectory, torch.tensor([0.5, 0.5, 0.5, -0.5], dtype=torch.float64))
    torch.testing.assert_close(by_row, torch.tensor([0.25, 0.25, 0.25, -0.75], dtype=torch.float64))


def test_rows_of_a_trajectory_must_agree() -> None:
    with pytest.raises(ValueError, match="same reward and group"):
        group_advantage(*rows((1.0, 0, 0), (0.0, 0, 0)))
    with pytest.raises(ValueError, match="same reward and group"):
        group_advantage(*rows((1.0, 0, 0), (1.0, 1, 0)))


def test_unknown_normalisation() -> None:
    with pytest.raises(ValueError, match="unknown normalisation 'max'"):
        group_advantage(*rows((1.0, 0, 0)), normalise="max")


def test_no_rows() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    assert group_advantage(torch.zeros(0), empty, empty).shape == (0,)
