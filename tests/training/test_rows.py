import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palaestra.errors import DataError
from palaestra.training.rows import build_rows, rows_of
from palaestra.trajectories.record import Node, StepRecord, Trajectory


def sampled(*ids: int, allowed: list[list[int]] | None = None) -> Node:
    logprobs, entropies = [-i / 10 for i in ids], [i / 100 for i in ids]
    return Node(ids=list(ids), role="assistant", sampled=True, logprobs=logprobs, entropies=entropies, allowed=allowed)


def step(completion: int, prompt: list[int] | None = None, *, invalid: bool = False) -> StepRecord:
    return StepRecord(observation="o", action="a", reward=0, completion=completion, prompt=prompt, invalid=invalid)


def episode(name: str = "0", **changes: object) -> Trajectory:
    """Two turns with full history."""
    nodes = [Node(ids=[1, 2]), sampled(3, 4), Node(ids=[5]), sampled(6)]
    fields = {"nodes": nodes, "steps": [step(1), step(3)], "group": "g", "total_reward": 1.0, **changes}
    return Trajectory(id=name, env="e/E-v0", task="t", **fields)  # type: ignore[arg-type]


def test_full_history_is_one_row() -> None:
    batch = build_rows([episode()]).batch
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch.mask.tolist() == [[False, False, True, True, False, True]]
    assert batch.step_id.tolist() == [[-1, -1, 0, 0, -1, 1]]
    assert batch.rollout_logprob[0].tolist() == pytest.approx([0, 0, -0.3, -0.4, 0, -0.6])
    assert batch.rollout_entropy[0].tolist() == pytest.approx([0, 0, 0.03, 0.04, 0, 0.06])
    assert batch.allowed is None
    assert batch.reward.dtype == torch.float64


def test_a_window_makes_several_rows_and_trains_each_completion_once() -> None:
    nodes = [Node(ids=[1]), Node(ids=[2]), sampled(3), Node(ids=[4]), sampled(5), Node(ids=[6]), sampled(7)]
    steps = [step(2), step(4), step(6, [0, 3, 4, 5])]
    batch = build_rows([episode(nodes=nodes, steps=steps)]).batch
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5], [1, 4, 5, 6, 7]]
    assert batch.mask.tolist() == [[False, False, True, False, True], [False] * 4 + [True]]
    assert batch.step_id[1].tolist() == [-1, -1, -1, -1, 2]
    assert batch.traj.tolist() == [0, 0]


def test_an_explicit_prompt_that_extends_the_row_stays_in_it() -> None:
    nodes = episode().nodes
    assert len(rows_of(episode(nodes=nodes, steps=[step(1, [0]), step(3, [0, 1, 2])]))) == 1
    assert len(rows_of(episode(nodes=nodes, steps=[step(1, [0]), step(3, [1, 2])]))) == 2


def test_what_was_cut_off_from_outside_is_left_out_and_counted() -> None:
    trajectories = [
        episode("0"),
        episode("1", status="error"),
        episode("2", status="timeout"),
        episode("3", status="overflow", total_reward=0.0),
        episode("4", status="error"),
        episode("5", nodes=[], steps=[]),
    ]
    rows = build_rows(trajectories)
    assert [t.id for t in rows.trajectories] == ["0", "3"]
    assert rows.left_out == {"empty": 1, "error": 2, "timeout": 1}
    assert rows.batch.reward.tolist() == [1.0, 0.0]


def test_rows_are_padded_on_the_right_and_groups_are_numbered() -> None:
    short = episode("1", nodes=[Node(ids=[9]), sampled(8)], steps=[step(1)], group="h")
    batch = build_rows([episode("0"), short, episode("2")], temperature=0.7).batch
    assert batch.length.tolist() == [6, 2, 6]
    assert batch.ids[1].tolist() == [9, 8, 0, 0, 0, 0]
    assert batch.group.tolist() == [0, 1, 0]
    assert batch.traj.tolist() == [0, 1, 2]
    assert batch.temperature == 0.7


def test_refused_actions_cost_the_penalty() -> None:
    steps = [step(1, invalid=True), step(3, invalid=True)]
    assert build_rows([episode(steps=steps)], invalid_penalty=0.1).batch.reward.tolist() == pytest.approx([0.8])


def test_allowed_ids_are_ragged_in_row_major_order() -> None:
    nodes = [Node(ids=[1]), sampled(3, 4, allowed=[[3, 5], [4]])]
    free = episode("1", nodes=[Node(ids=[1]), sampled(2)], steps=[step(1)])
    rows = build_rows([free, episode("0", nodes=nodes, steps=[step(1)])])
    assert rows.batch.allowed is not None
    assert rows.batch.allowed.offsets.tolist() == [0, 0, 2, 3]
    assert rows.batch.allowed.ids.tolist() == [3, 5, 4]


def test_steps_without_tokens_are_no_rows() -> None:
    rows = build_rows([episode(nodes=[], steps=[step(-1), step(-1)])])
    assert rows.batch.shape == (0, 0)
    assert rows.left_out == {"empty": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": [step(9)]}, "there is no node 9"),
        ({"nodes": [sampled(1)], "steps": [step(0)]}, "begins with a sampled token"),
        ({"nodes": [Node(ids=[1]), Node(ids=[2], sampled=True, logprobs=[])], "steps": [step(1)]}, "0 log-probs"),
        ({"nodes": [Node(ids=[1]), sampled(2, allowed=[])], "steps": [step(1)]}, "a completion of 1 tokens"),
    ],
)
def test_records_that_do_not_fit_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_rows([episode(**changes)])


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.booleans()), min_size=1, max_size=8))
def test_every_sampled_token_is_trained_exactly_once(turns: list[tuple[int, int, bool]]) -> None:
    """Whatever the context policy does: each turn's prompt extends the last, or is cut to the newest observation."""
    nodes: list[Node] = []
    steps: list[StepRecord] = []
    token = 1
    for seen, wrote, cut in turns:
        nodes.append(Node(ids=list(range(token, token + seen))))
        nodes.append(sampled(*range(token + seen, token + seen + wrote)))
        token += seen + wrote
        steps.append(step(len(nodes) - 1, [len(nodes) - 2] if cut else None))
        if not cut and len(steps) > 1 and turns[len(steps) - 2][2]:
            steps[-1].prompt = None  # extends the row that the cut began
    batch = build_rows([episode(nodes=nodes, steps=steps)]).batch
    trained = sorted(batch.ids[batch.mask].tolist())
    assert trained == sorted(t for node in nodes if node.sampled for t in node.ids)
    assert np.allclose(batch.rollout_logprob[batch.mask].numpy(), -batch.ids[batch.mask].numpy() / 10)
    assert sorted(set(batch.step_id[batch.mask].tolist())) == list(range(len(turns)))
