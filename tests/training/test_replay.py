"""Replayed trajectories: which are kept, for how long, and that they come back as they were."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shaping import by_turn, padded, random_batch
from torch import Tensor

from palaestra.errors import CheckpointError
from palaestra.training.batch import Allowed, Batch
from palaestra.training.forward import select_allowed
from palaestra.training.replay import ReplayBuffer
from palaestra.training.stored import Stored, put, take

CHECK = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)


def constrained(batch: Batch, seed: int) -> Batch:
    """With some tokens that had few to choose from."""
    g = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, 4, (int(batch.mask.sum()),), generator=g)
    ids = torch.randint(1, 300, (int(sizes.sum()),), generator=g)
    return batch.with_(allowed=Allowed(ids, torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))))


def simple(step: int, reward: float = 1.0, advantage: float = 1.0) -> Stored:
    column = torch.tensor([2, 3])
    turn = torch.tensor([-1, 0])
    return Stored(step, reward, advantage, torch.tensor([2]), column, turn, torch.tensor([-0.1]))


def good(batch: Batch) -> Tensor:
    """[B] bool: rows with policy tokens of trajectories whose advantage is positive."""
    assert batch.advantage is not None
    mean = [float(batch.advantage[batch.traj == traj][batch.mask[batch.traj == traj]].sum()) for traj in batch.traj]
    return (torch.tensor(mean) > 0) & batch.mask.any(1)


def json_copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


@CHECK
@given(seed=SEEDS, turns=st.booleans(), columns=st.integers(0, 3))
def test_what_is_taken_is_put_back(seed: int, turns: bool, columns: int) -> None:
    batch = constrained(random_batch(seed), seed)
    batch = by_turn(batch.with_(allowed=None)) if turns else batch
    batch = padded(batch, columns, math.nan)
    taken = [Stored.of_state(json_copy(each.state_dict())) for each in take(batch, 7)]
    rows = good(batch)
    now = torch.arange(1.0, len(taken) + 1)
    found = put(taken, now, temperature=0.7)
    assert {each.step for each in taken} <= {7}
    assert torch.equal(found.length, batch.length[rows])
    width = found.shape[1]
    for name in ("mask", "step_id"):
        assert torch.equal(getattr(found, name), getattr(batch, name)[rows][:, :width])
    present = torch.arange(width) < found.length[:, None]
    assert torch.equal(found.ids, torch.where(present, batch.ids[rows][:, :width], 0))
    assert batch.old_logprob is not None
    for column in (found.old_logprob, found.rollout_logprob):
        assert column is not None
        assert torch.equal(column, torch.where(found.mask, batch.old_logprob[rows][:, :width], 0))
    assert torch.equal(found.reward, batch.reward[rows])
    assert found.advantage is not None
    assert torch.equal(found.advantage, torch.where(found.mask, now[found.traj][:, None], 0.0))
    if batch.allowed is not None and len(taken):
        place = (batch.mask.flatten().cumsum(0).view(batch.shape) - 1)[rows][batch.mask[rows]]
        expected = select_allowed(batch.allowed, place)
        assert found.allowed is not None
        assert torch.equal(found.allowed.ids, expected.ids)
        assert torch.equal(found.allowed.offsets, expected.offsets)


def test_rows_that_filters_left_out_are_not_taken() -> None:
    batch = random_batch(0).with_(kept=torch.zeros(9, dtype=torch.bool))
    assert take(batch, 0) == []


def test_trajectories_with_and_without_a_constraint_go_together() -> None:
    free = simple(0)
    bound = replace(free, allowed=Allowed(torch.tensor([3, 4]), torch.tensor([0, 2])))
    found = put([free, bound, free], torch.ones(3))
    assert found.allowed is not None
    assert found.allowed.ids.tolist() == [3, 4]
    assert found.allowed.offsets.tolist() == [0, 0, 2, 2]


def test_nothing_to_replay_is_an_empty_batch() -> None:
    buffer = ReplayBuffer()
    buffer.insert([], 3)
    assert buffer.select(0.0, 3, 8, seed=0) == []
    assert put([], torch.zeros(0)).shape == (0, 0)


@CHECK
@given(
    rewards=st.lists(st.lists(st.floats(-2, 2), max_size=4), max_size=15),
    tolerate=st.integers(0, 12),
    size=st.integers(0, 9),
    p50=st.floats(-1, 1),
)
def test_the_stale_the_mediocre_and_the_excess_are_never_replayed(
    rewards: list[list[float]], tolerate: int, size: int, p50: float
) -> None:
    buffer, limit = ReplayBuffer(size, tolerate), min(tolerate, 10)
    for now, values in enumerate(rewards):
        buffer.insert([simple(now, value, value - 0.5) for value in values], now)
        assert len(buffer.entries) <= size
        assert [e.step for e in buffer.entries] == sorted(e.step for e in buffer.entries)
        for later in (now, now + 2):
            chosen = buffer.select(p50, later, 3, seed=1)
            fit = [e for e in buffer.entries if later - e.step <= limit and e.reward > p50]
            assert all(e.advantage > 0 and any(e is other for other in fit) for e in chosen)
            assert len({id(e) for e in chosen}) == len(chosen) == min(3, len(fit))
            assert [id(e) for e in chosen] == [id(e) for e in buffer.select(p50, later, 3, seed=1)]


def test_the_oldest_make_room() -> None:
    buffer = ReplayBuffer(3, 5)
    buffer.insert([simple(0, 1), simple(0, 2)], 0)
    buffer.insert([simple(1, 3), simple(1, 4)], 1)
    assert [e.reward for e in buffer.entries] == [2, 3, 4]
    assert [e.reward for e in buffer.select(3, 1, 9, seed=0)] == [4]
    assert [e.reward for e in buffer.select(3, 1, 9, seed=0, strict=False)] == [3, 4]


@CHECK
@given(seed=SEEDS)
def test_a_resumed_buffer_goes_on_as_the_undisturbed_one(seed: int) -> None:
    whole, resumed = ReplayBuffer(6, 2), ReplayBuffer(6, 2)
    for step in range(3):
        whole.insert(take(random_batch(seed + step), step), step)
    resumed.load_state_dict(json_copy(whole.state_dict()))
    for each in (whole, resumed):
        each.insert(take(constrained(random_batch(seed + 3), seed), 3), 3)
    assert resumed.state_dict() == whole.state_dict()
    ours, theirs = (buffer.select(0.0, 3, 4, seed=seed) for buffer in (resumed, whole))
    assert [e.state_dict() for e in ours] == [e.state_dict() for e in theirs]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"entries": 1},
        {"entries": [1]},
        {"entries": [{}]},
        {"entries": [{**simple(0).state_dict(), "ids": "?"}]},
        {"entries": [{**simple(0).state_dict(), "logprob": ""}]},
        {"entries": [{**simple(0).state_dict(), "allowed": {}, "ids": ""}]},
    ],
)
def test_what_is_no_buffer_is_refused(state: dict[str, Any]) -> None:
    buffer = ReplayBuffer()
    buffer.insert([simple(0)], 0)
    with pytest.raises(CheckpointError, match="not a saved"):
        buffer.load_state_dict(state)
    assert len(buffer.entries) == 1
