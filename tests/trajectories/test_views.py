import pytest

from palaestra.errors import DataError
from palaestra.trajectories.record import Node, StepRecord, Trajectory
from palaestra.trajectories.views import credit_kind, entropy_by_turn, step_credit, turns


def make(*entropies: list[float], **fields: object) -> Trajectory:
    nodes = [node for e in entropies for node in (Node(ids=[1]), Node(ids=[2] * len(e), sampled=True, entropies=e))]
    steps = [StepRecord(observation="o", action="a", reward=0.0, completion=2 * i + 1) for i in range(len(entropies))]
    return Trajectory(id="0/0/0", env="e", task="t", nodes=nodes, steps=steps, total_reward=1.0, **fields)  # type: ignore[arg-type]


def test_turns_pair_steps_with_their_completions() -> None:
    first, second = turns(make([0.2, 0.4], []))
    assert first.completion is not None
    assert first.entropy == pytest.approx(0.3)
    assert (second.index, second.entropy) == (1, None)


@pytest.mark.parametrize(
    ("meta", "kind", "credit"),
    [
        ({}, "return", [1.0, 1.0]),
        ({"advantage": -0.5}, "advantage", [-0.5, -0.5]),
        ({"advantage": -0.5, "step_credit": [0.25, 2]}, "step credit", [0.25, 2.0]),
        ({"advantage": -0.5, "step_credit": [0.25]}, "advantage", [-0.5, -0.5]),
        ({"advantage": "much", "step_credit": ["a", "b"]}, "return", [1.0, 1.0]),
    ],
)
def test_credit_comes_from_the_most_exact_source(meta: dict[str, object], kind: str, credit: list[float]) -> None:
    trajectory = make([0.1], [0.2], meta=meta)
    assert (credit_kind(trajectory), step_credit(trajectory)) == (kind, credit)


def test_agents_without_tokens_have_turns_too() -> None:
    trajectory = Trajectory(id="a", env="e", task="t", steps=[StepRecord(observation="o", action="a", reward=1.0)])
    assert [(turn.completion, turn.entropy) for turn in turns(trajectory)] == [(None, None)]


def test_a_step_that_names_a_missing_node_is_refused() -> None:
    trajectory = make([0.1])
    trajectory.steps[0].completion = 9
    with pytest.raises(DataError, match="step 0: there is no node 9"):
        turns(trajectory)


def test_entropy_by_turn_averages_over_those_that_got_there() -> None:
    assert entropy_by_turn([make([0.2], [0.4]), make([0.6]), make([], [], [])]) == pytest.approx([0.4, 0.4, None])
