"""GiGPO: returns to go and anchor groups."""

import pytest
import torch

from palaestra.training.gigpo import anchor_groups, discounted_return, episode_return, gigpo_advantage, step_advantage


def test_return_to_go_of_interleaved_trajectories() -> None:
    reward, traj = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([9, 5, 9, 5])
    assert discounted_return(reward, traj, 0.5).tolist() == [1.0, 3.0, 2.0, 4.0]
    assert episode_return(reward, traj).tolist() == [2.0, 5.0, 2.0, 5.0]


def test_anchors_of_different_groups_are_apart() -> None:
    groups = anchor_groups(torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 7, 8]))
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 3


def test_an_anchor_that_is_alone_gets_nothing_and_others_are_centred() -> None:
    reward, group, traj = torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3).long(), torch.tensor([0, 0, 1])
    advantage = step_advantage(reward, group, traj, torch.tensor([1, 2, 1]), gamma=1.0)
    assert advantage.tolist() == [0.5, 0.0, -0.5]


@pytest.mark.parametrize("normalise", ["mean", "std"])
def test_without_its_weight_it_is_the_episode_advantage(normalise: str) -> None:
    columns = torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3).long(), torch.tensor([0, 0, 1]), torch.tensor([1, 2, 1])
    plain = gigpo_advantage(*columns, omega=0.0, normalise=normalise)
    size = 0.5 if normalise == "mean" else 0.5**0.5
    assert plain.tolist() == pytest.approx([size, size, -size], abs=1e-5)
