"""GiGPO: returns to go and anchor groups."""

import pytest
import torch

from palaestra.config import parse_recipe
from palaestra.errors import ConfigError
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.gigpo import anchor_groups, discounted_return, episode_return, gigpo_advantage, step_advantage
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory


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


def build(*overrides: str) -> Algorithm:
    recipe = parse_recipe('name: x\ntasks: {train: "a:train"}\n', ["algorithm.name=gigpo", *overrides])
    return build_algorithm(recipe)


def play(name: str, group: str, turns: list[tuple[str, float, bool]], *, window: bool = False) -> Trajectory:
    """Turns of (observation, reward, invalid), each with a completion of as many tokens as its number."""
    nodes: list[Node] = []
    steps: list[StepRecord] = []
    for number, (observation, reward, invalid) in enumerate(turns, 1):
        nodes.append(Node(ids=[number]))
        nodes.append(Node(ids=[9] * number, sampled=True, logprobs=[-1.0] * number, entropies=[1.0] * number))
        prompt = [len(nodes) - 2] if window else None
        steps.append(
            StepRecord(
                observation=observation,
                action="",
                reward=reward,
                invalid=invalid,
                prompt=prompt,
                completion=len(nodes) - 1,
            )
        )
    total = sum(reward for _, reward, _ in turns)
    return Trajectory(id=name, env="", task="", group=group, total_reward=total, nodes=nodes, steps=steps)


def plays(*, window: bool = False) -> list[Trajectory]:
    return [
        play("0", "a", [("start", 0.0, False), ("hall", 0.0, True), ("start", 1.0, False)], window=window),
        play("1", "a", [("start", 0.0, False), ("hall", 0.0, False)], window=window),
        play("2", "b", [("start", 0.0, False), ("start", 0.0, True), ("end", 1.0, False)], window=window),
        play("3", "b", [("start", 0.0, False), ("end", 1.0, False)], window=window),
    ]


def by_turn(batch: Batch) -> dict[tuple[int, int], float]:
    """The advantage of each (trajectory, turn); all of its tokens must have the same."""
    assert batch.advantage is not None
    found: dict[tuple[int, int], set[float]] = {}
    for row, column in batch.mask.nonzero().tolist():
        key = int(batch.traj[row]), int(batch.step_id[row, column])
        found.setdefault(key, set()).add(float(batch.advantage[row, column]))
    assert all(len(values) == 1 for values in found.values())
    assert not batch.advantage[~batch.mask].any()
    return {key: values.pop() for key, values in found.items()}


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("normalise", ["std", "mean"])
def test_recipes_get_the_reference_function_turn_by_turn(window: bool, normalise: str) -> None:
    """Whether an episode is one row or one a turn."""
    algorithm = build(
        f"algorithm.normalise={normalise}",
        "algorithm.invalid_penalty=0.1",
        "algorithm.settings.gigpo={gamma: 0.5, omega: 0.7}",
    )
    batch = algorithm.prepare(
        build_rows(plays(window=window), invalid_penalty=algorithm.invalid_penalty).batch, Moment(0, 1)
    )
    assert len(batch.ids) == (10 if window else 4)
    expected = gigpo_advantage(
        torch.tensor([0, -0.1, 1, 0, 0, 0, -0.1, 1, 0, 1], dtype=torch.float64),
        torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
        torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3]),
        torch.tensor([0, 1, 0, 0, 1, 0, 0, 2, 0, 2]),
        gamma=0.5,
        omega=0.7,
        normalise=normalise,  # type: ignore[arg-type]
    )
    turns = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)]
    assert by_turn(batch) == pytest.approx(dict(zip(turns, expected.tolist(), strict=True)), abs=1e-6)


def test_in_a_group_that_always_succeeds_the_shorter_way_is_preferred() -> None:
    batch = build("algorithm.normalise=mean").prepare(build_rows(plays()[2:]).batch, Moment(0, 1))
    found = by_turn(batch)
    assert found[0, 0] < 0 < found[1, 0]
    assert found[0, 2] == found[1, 1] == 0


def test_without_the_step_part_it_is_the_group_s_advantage() -> None:
    rows = build_rows(plays()).batch
    group, gigpo = build("algorithm.name=grpo"), build("algorithm.settings.gigpo.omega=0")
    torch.testing.assert_close(gigpo.prepare(rows, Moment(0, 1)).advantage, group.prepare(rows, Moment(0, 1)).advantage)


def test_leave_one_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="the plug-in gigpo has algorithm.normalise std or mean"):
        build("algorithm.normalise=rloo")


@pytest.mark.parametrize("setting", ["gamma=1.1", "gamma=.nan", "omega=-1", "omega=.inf"])
def test_settings_have_ranges(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"algorithm\.settings\.gigpo\.{setting[:5]}: expected"):
        build(f"algorithm.settings.gigpo.{setting}")


def test_an_iteration_without_episodes_has_no_turns() -> None:
    turns = build_rows([]).batch.turns
    assert turns is not None
    assert turns.reward.shape == turns.anchor.shape == turns.start.shape == (0,)
