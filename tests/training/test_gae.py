"""Generalised advantage estimation against its definition, and where decisions are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shaping import by_turn, padded, permuted, random_batch
from support.updates import episodes
from torch import Tensor

from palaestra.training.batch import Batch, Turns
from palaestra.training.gae import Decisions, GaeAdvantage, Unit, cut_off, gae
from palaestra.training.rows import build_rows
from palaestra.trajectories.record import Node, StepRecord, Trajectory

UNITS = pytest.mark.parametrize("unit", ["turn", "token"])
SEEDS = st.integers(0, 10**6)
RATES = st.sampled_from([0.0, 0.3, 0.95, 1.0])


def slow_gae(reward: list[float], value: list[float], after: float, gamma: float, lam: float) -> list[float]:
    """Of one episode: the sum over all later temporal differences, term by term."""
    values = [*value, after]
    delta = [r + gamma * values[k + 1] - values[k] for k, r in enumerate(reward)]
    size = len(reward)
    return [sum((gamma * lam) ** (later - k) * delta[later] for later in range(k, size)) for k in range(size)]


def with_turns(batch: Batch, seed: int) -> Batch:
    """Rewards for every turn up to two after the last one that has tokens, and values everywhere."""
    g = torch.Generator().manual_seed(seed)
    count = int(batch.step_id.max()) + 3
    trajectories = int(batch.traj.max()) + 1
    turns = Turns(
        start=torch.arange(trajectories) * count,
        traj=torch.arange(trajectories).repeat_interleave(count),
        group=torch.zeros(trajectories * count, dtype=torch.int64),
        reward=torch.randn(trajectories * count, generator=g, dtype=torch.float64),
        anchor=torch.arange(trajectories * count),
    )
    # A value belongs to a turn's state, the same in all of its tokens and in whichever row they are.
    by_state = torch.randn(trajectories, count, generator=g)
    value = by_state[batch.traj[:, None], batch.step_id.clamp(min=0)]
    return batch.with_(turns=turns, value=torch.where(batch.mask, value, 0.0))


def slow_advantage(batch: Batch, unit: Unit, gamma: float, lam: float) -> Tensor:
    """From the definition, trajectory by trajectory and token by token."""
    assert batch.turns is not None
    assert batch.value is not None
    expected = torch.zeros(batch.shape, dtype=torch.float64)
    for traj in batch.traj.unique().tolist():
        tokens = sorted(
            (int(batch.step_id[row, column]), column, row)
            for row, column in batch.trained.nonzero().tolist()
            if int(batch.traj[row]) == traj
        )
        decisions: list[list[tuple[int, int, int]]] = []
        for token in tokens:
            if unit == "turn" and decisions and decisions[-1][0][0] == token[0]:
                decisions[-1].append(token)
            else:
                decisions.append([token])
        rewards = [0.0] * len(decisions)
        mine = batch.turns.reward[batch.turns.traj == traj].tolist()
        for turn, reward in enumerate(mine):
            before = [k for k, tokens_ in enumerate(decisions) if tokens_[0][0] <= turn]
            if before:
                rewards[before[-1]] += reward
        values = [float(batch.value[tokens_[0][2], tokens_[0][1]]) for tokens_ in decisions]
        for tokens_, advantage in zip(decisions, slow_gae(rewards, values, 0.0, gamma, lam), strict=True):
            for _, column, row in tokens_:
                expected[row, column] = advantage
    return expected


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=SEEDS, gamma=RATES, lam=RATES)
def test_it_is_the_sum_of_the_definition(sizes: list[int], seed: int, gamma: float, lam: float) -> None:
    g = torch.Generator().manual_seed(seed)
    total = sum(sizes)
    reward, value, after = (torch.randn(total, generator=g, dtype=torch.float64) for _ in range(3))
    last = torch.zeros(total, dtype=torch.bool)
    last[torch.tensor(sizes).cumsum(0) - 1] = True
    found = gae(reward, value, last, after, gamma=gamma, lam=lam)
    start, expected = 0, []
    for size in sizes:
        here = slice(start, start + size)
        expected += slow_gae(reward[here].tolist(), value[here].tolist(), float(after[start + size - 1]), gamma, lam)
        start += size
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@UNITS
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, gamma=RATES, lam=RATES)
def test_a_batch_agrees_with_the_slow_reference(unit: Unit, seed: int, gamma: float, lam: float) -> None:
    batch = with_turns(random_batch(seed), seed)
    found = GaeAdvantage(unit, gamma, lam)(batch)
    torch.testing.assert_close(found.double(), slow_advantage(batch, unit, gamma, lam), rtol=0, atol=1e-5)


@UNITS
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_lambda_one_is_the_return_less_the_value(unit: Unit, seed: int) -> None:
    batch = with_turns(random_batch(seed), seed)
    assert batch.value is not None
    decisions = Decisions.of(batch, unit)
    received = decisions.rewards(batch)
    to_go = torch.zeros_like(received)
    for k in range(len(received)):
        to_go[k] = received[k:][decisions.traj[k:] == decisions.traj[k]].sum()
    value = batch.value[decisions.row, decisions.column].double()
    expected = decisions.on_tokens(to_go - value, batch)
    torch.testing.assert_close(GaeAdvantage(unit, 1.0, 1.0)(batch), expected, rtol=0, atol=1e-5)


@UNITS
@given(seed=SEEDS, gamma=RATES)
@settings(max_examples=20, deadline=None)
def test_lambda_zero_is_the_temporal_difference(unit: Unit, seed: int, gamma: float) -> None:
    batch = with_turns(random_batch(seed), seed)
    assert batch.value is not None
    decisions = Decisions.of(batch, unit)
    value = batch.value[decisions.row, decisions.column].double()
    following = torch.where(decisions.last, 0.0, value.roll(-1))
    expected = decisions.on_tokens(decisions.rewards(batch) + gamma * following - value, batch)
    torch.testing.assert_close(GaeAdvantage(unit, gamma, 0.0)(batch), expected, rtol=0, atol=1e-5)


@UNITS
@given(constant=st.floats(-5, 5), lam=RATES)
@settings(max_examples=20, deadline=None)
def test_a_constant_value_is_a_baseline(unit: Unit, constant: float, lam: float) -> None:
    """Undiscounted, differences of equal values vanish within an episode: only its end sees the constant."""
    batch = with_turns(random_batch(3), 3)
    flat = torch.where(batch.mask, constant, 0.0)
    credit = GaeAdvantage(unit, 1.0, lam)
    change = credit(batch.with_(value=flat)) - credit(batch.with_(value=torch.zeros(batch.shape)))
    decisions = Decisions.of(batch, unit)
    to_end = torch.zeros(len(decisions.traj), dtype=torch.float64)
    for k in range(len(to_end)):
        to_end[k] = float((decisions.traj[k + 1 :] == decisions.traj[k]).sum())
    expected = decisions.on_tokens(-constant * lam**to_end, batch)
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-4)


@UNITS
def test_what_is_masked_out_and_padding_change_nothing(unit: Unit) -> None:
    batch = with_turns(random_batch(1), 1)
    assert batch.value is not None
    expected = GaeAdvantage(unit)(batch)
    spoilt = padded(batch.with_(value=None), 4, math.nan)
    value = torch.nn.functional.pad(torch.where(batch.mask, batch.value, math.nan), (0, 4), value=math.inf)
    found = GaeAdvantage(unit)(spoilt.with_(value=value))
    assert torch.equal(found[:, : batch.shape[1]], expected)
    assert not found[:, batch.shape[1] :].any()
    assert not found.requires_grad


@UNITS
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_permuting_rows_permutes_advantages(unit: Unit, seed: int) -> None:
    batch = with_turns(random_batch(seed), seed)
    order = torch.randperm(len(batch.ids), generator=torch.Generator().manual_seed(seed))
    assert batch.value is not None
    mixed = permuted(batch, order).with_(value=batch.value[order])
    assert torch.equal(GaeAdvantage(unit)(mixed), GaeAdvantage(unit)(batch)[order])


@UNITS
def test_time_goes_on_over_the_rows_of_an_episode(unit: Unit) -> None:
    """A row a turn, as windows over the context make them, in any order: the same credit."""
    whole = with_turns(random_batch(5), 5)
    rows = by_turn(whole.with_(value=None))
    pieces = with_turns(rows, 5)
    assert pieces.turns is not None
    assert whole.turns is not None
    assert torch.equal(pieces.turns.reward, whole.turns.reward)
    ours, theirs = GaeAdvantage(unit)(whole), GaeAdvantage(unit)(pieces)
    for traj in whole.traj.tolist():
        assert torch.equal(theirs[pieces.traj == traj].sum(0), ours[traj])


@UNITS
def test_rows_that_were_left_out_have_no_decisions(unit: Unit) -> None:
    batch = with_turns(random_batch(2), 2)
    kept = torch.ones(len(batch.ids), dtype=torch.bool)
    kept[[1, 4]] = False
    full, left = GaeAdvantage(unit)(batch), GaeAdvantage(unit)(batch.keeping(kept))
    assert torch.equal(left[kept], full[kept])
    assert not left[~kept].any()


@UNITS
def test_without_tokens_there_is_nothing(unit: Unit) -> None:
    batch = with_turns(random_batch(2), 2)
    nothing = batch.with_(mask=torch.zeros_like(batch.mask), step_id=torch.full_like(batch.step_id, -1))
    assert not GaeAdvantage(unit, bootstrap=True)(nothing).any()


def two_turns(*, terminated: bool, truncated: bool, status: str = "ok") -> Trajectory:
    nodes = [
        Node(ids=[1, 2]),
        Node(ids=[3, 4], sampled=True, logprobs=[-1.0, -1.0]),
        Node(ids=[5]),
        Node(ids=[6], sampled=True, logprobs=[-1.0]),
    ]
    steps = [
        StepRecord(observation="a", action="", reward=0.25, completion=1),
        StepRecord(observation="b", action="", reward=1.0, completion=3, terminated=terminated, truncated=truncated),
    ]
    return Trajectory(id="x", env="", task="", nodes=nodes, steps=steps, total_reward=1.25, status=status)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terminated", "truncated", "status", "expected"),
    [
        (True, False, "ok", False),
        (False, True, "ok", True),
        (True, True, "ok", False),
        (False, False, "overflow", True),
    ],
)
def test_a_cut_off_episode_may_go_on_at_its_last_value(
    terminated: bool, truncated: bool, status: str, expected: bool
) -> None:
    batch = build_rows([two_turns(terminated=terminated, truncated=truncated, status=status)]).batch
    assert cut_off(batch).tolist() == [expected]
    value = torch.tensor([[0.0, 0.0, 2.0, 2.0, 0.0, 3.0]])
    credit = GaeAdvantage("turn", gamma=0.5, lam=0.5, bootstrap=True)
    found = credit(batch.with_(value=value))[0].tolist()
    last = 1.0 + (0.5 * 3.0 if expected else 0.0) - 3.0
    first = 0.25 + 0.5 * 3.0 - 2.0 + 0.25 * last
    assert found == pytest.approx([0, 0, first, first, 0, last])
    at_the_end = GaeAdvantage("turn", gamma=0.5, lam=0.5)(batch.with_(value=value))[0]
    assert float(at_the_end[-1]) == pytest.approx(-2.0)


def test_a_turn_s_reward_comes_with_its_last_token() -> None:
    batch = build_rows([two_turns(terminated=True, truncated=False)]).batch
    tokens = Decisions.of(batch, "token")
    assert tokens.rewards(batch).tolist() == [0.0, 0.25, 1.0]
    assert Decisions.of(batch, "turn").rewards(batch).tolist() == [0.25, 1.0]
    assert Decisions.of(batch, "turn").points(batch).nonzero()[:, 1].tolist() == [2, 5]
    alone = batch.with_(turns=None)
    assert tokens.rewards(alone).tolist() == [0.0, 0.0, 1.25]


@UNITS
def test_a_turn_without_tokens_pays_the_decision_before_it(unit: Unit) -> None:
    trajectory = two_turns(terminated=True, truncated=False)
    trajectory.steps.append(StepRecord(observation="c", action="", reward=7.0))
    found = Decisions.of(build_rows([trajectory]).batch, unit).rewards(build_rows([trajectory]).batch)
    assert float(found[-1]) == 8.0


def test_penalties_reach_the_last_decision() -> None:
    batch = build_rows(episodes()).batch
    lower = batch.rewarded(torch.full((12,), -2.0, dtype=torch.float64))
    decisions = Decisions.of(batch, "turn")
    change = decisions.rewards(lower) - decisions.rewards(batch)
    assert torch.equal(change, torch.where(decisions.last, -2.0, 0.0).double())
