"""What holds for the parts of SPEAR whatever the numbers."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shaping import by_turn, padded, permuted, random_batch
from torch import Tensor

from palaestra.errors import CheckpointError
from palaestra.training.aggregate import aggregate
from palaestra.training.baseline import BaselineBuffer
from palaestra.training.covariance import CovarianceLoss, clip_cov, covariance, kl_cov, pick, pick_generator
from palaestra.training.curriculum import imitation_weight, tool_call_weight
from palaestra.training.imitation import recalibrated, replayed
from palaestra.training.plugins.widest_groups import WidestGroups
from palaestra.training.returns import group_means, returns_of
from palaestra.training.seams import Moment
from palaestra.training.surrogate import surrogate
from palaestra.training.tool_reward import composite_reward, tool_call_reward

CHECK = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)
STEPS = st.integers(0, 500)
LENGTHS = st.integers(1, 300)
MEANS = st.lists(st.lists(st.floats(-10, 10), max_size=5), max_size=12)
WIDE: dict[str, Any] = {"low": 0.0, "high": math.inf, "rate": 0.3}
"""Many eligible tokens."""

MOMENT = Moment(1, 10)


def columns(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-prob (a leaf), old log-prob, advantage and mask, with garbage outside."""
    g = torch.Generator().manual_seed(seed)
    shape = (5, 9)
    mask = torch.rand(shape, generator=g) < 0.7
    mask[0, 0] = mask[3, 4] = True
    logprob = -3 * torch.rand(shape, generator=g, dtype=torch.float64)
    old = logprob + 0.4 * torch.randn(shape, generator=g, dtype=torch.float64)
    advantage = 3 * torch.randn(5, 1, generator=g, dtype=torch.float64).expand(shape)
    garbage = torch.tensor(math.nan, dtype=torch.float64)
    outside = [torch.where(mask, x, garbage) for x in (logprob, old, advantage)]
    return outside[0].requires_grad_(), outside[1], outside[2], mask


def clipped(seed: int, **options: Any) -> tuple[CovarianceLoss, Tensor]:
    """`clip_cov` and its gradient for the token mean."""
    logprob, old, advantage, mask = columns(seed)
    result = clip_cov(logprob, old, advantage, mask, generator=pick_generator(seed, 3), **{**WIDE, **options})
    return result, torch.autograd.grad(aggregate(result.loss, mask, "token-mean"), logprob)[0]


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# Schedules and reward


@CHECK
@given(step=STEPS, length=LENGTHS)
def test_schedules_are_monotonous_from_end_to_end(step: int, length: int) -> None:
    mu, gamma = tool_call_weight(step, length), imitation_weight(step, length)
    assert 0 <= tool_call_weight(step + 1, length) <= mu <= 1
    assert 0 <= gamma <= imitation_weight(step + 1, length) <= 1
    assert tool_call_weight(0, length) == imitation_weight(length, length) == 1
    assert tool_call_weight(length, length) == imitation_weight(0, length) == 0
    assert mu + gamma == pytest.approx(1, abs=1e-12)
    bound = math.pi / (2 * length) + 1e-12
    assert mu - tool_call_weight(step + 1, length) <= bound, "no jump"


def test_schedules_without_length_and_without_curve() -> None:
    assert (tool_call_weight(0, 0), imitation_weight(0, 0)) == (0, 1)
    assert [tool_call_weight(t, 5, "constant") for t in (0, 5, 9)] == [1, 1, 1]
    assert [tool_call_weight(t, 5, "none") for t in (0, 5, 9)] == [0, 0, 0]


@CHECK
@given(outcome=st.floats(-1, 1))
def test_the_tool_reward_rises_to_one(outcome: float) -> None:
    calls, returns = torch.arange(30), torch.full((30,), outcome, dtype=torch.float64)
    for reward in (tool_call_reward(calls), tool_call_reward(calls, outcome=returns)):
        assert reward[0] == 0
        assert reward[-1] == 1
        assert reward.diff().ge(0).all()
    assert torch.equal(composite_reward(returns, tool_call_reward(calls), 0.0), returns)


# Baseline and recalibration


@CHECK
@given(pushes=MEANS, capacity=st.integers(0, 12))
def test_the_baseline_drops_whole_iterations_from_the_front(pushes: list[list[float]], capacity: int) -> None:
    buffer = BaselineBuffer(capacity)
    for done, means in enumerate(pushes, 1):
        buffer.push(means)
        assert len(buffer) <= capacity + len(means)
        everything = [tuple(value for step in pushes[start:done] for value in step) for start in range(done)]
        assert buffer.contents in everything


@CHECK
@given(pushes=MEANS, order=st.randoms(use_true_random=False), shift=st.floats(-5, 5))
def test_the_median_does_not_depend_on_order_and_moves_with_a_shift(
    pushes: list[list[float]], order: Any, shift: float
) -> None:
    values = [value for step in pushes for value in step]
    one, other, moved = BaselineBuffer(), BaselineBuffer(), BaselineBuffer()
    one.push(values)
    moved.push([value + shift for value in values])
    order.shuffle(values)
    other.push(values)
    assert one.p50() == other.p50()
    p50, later = one.p50(), moved.p50()
    if p50 is None or later is None:
        assert not values
        return
    assert p50 == pytest.approx(float(torch.tensor(values, dtype=torch.float64).quantile(0.5)), abs=1e-12)
    reward = torch.linspace(-3, 3, 7, dtype=torch.float64)
    close(recalibrated(reward + shift, later), recalibrated(reward, p50))


@CHECK
@given(pushes=MEANS, capacity=st.integers(0, 12), more=st.lists(st.floats(-1, 1), max_size=4))
def test_the_baseline_comes_back(pushes: list[list[float]], capacity: int, more: list[float]) -> None:
    buffer, resumed = BaselineBuffer(capacity), BaselineBuffer(capacity)
    for means in pushes:
        buffer.push(means)
    resumed.load_state_dict(json.loads(json.dumps(buffer.state_dict())))
    for each in (buffer, resumed):
        each.push(more)
    assert (resumed.contents, resumed.p50()) == (buffer.contents, buffer.p50())


@pytest.mark.parametrize("state", [{}, {"steps": 3}, {"steps": [1.0]}, {"steps": [["x"]]}])
def test_what_is_no_baseline_is_refused(state: Any) -> None:
    with pytest.raises(CheckpointError, match="not a saved baseline buffer"):
        BaselineBuffer().load_state_dict(state)


def test_replayed_advantages_are_positive_constants() -> None:
    reward = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    again = recalibrated(reward, 0.5)
    assert not again.requires_grad
    assert again[replayed(torch.tensor([1.0, 1.0, 1.0, -1.0]), again)].tolist() == [0.5]
    assert recalibrated(reward, 0.5, std_p50=0.25).tolist() == [-2, 0, 2, 6]


# Groups


@CHECK
@given(seed=SEEDS, groups=st.integers(1, 7), part=st.floats(0, 1))
def test_the_widest_groups_stay_whole(seed: int, groups: int, part: float) -> None:
    batch = random_batch(seed, groups=groups)
    keep = WidestGroups(part)(batch, Moment(1, 10))
    whole = keep.view(groups, 3)
    assert torch.equal(whole.any(1), whole.all(1))
    assert int(whole[:, 0].sum()) == max(1, math.floor(part * groups))
    std = batch.reward.view(groups, 3).std(1, correction=0)
    close(returns_of(batch).std, std)
    dropped = std[~whole[:, 0]]
    assert not len(dropped) or std[whole[:, 0]].min() >= dropped.max() - 1e-12
    assert torch.equal(WidestGroups(1.0)(batch, Moment(1, 10)), torch.ones_like(keep))


@CHECK
@given(seed=SEEDS, order=st.permutations(range(9)))
def test_groups_do_not_depend_on_the_order_and_layout_of_rows(seed: int, order: list[int]) -> None:
    batch, index = random_batch(seed), torch.tensor(order)
    assert torch.equal(WidestGroups()(permuted(batch, index), MOMENT), WidestGroups()(batch, MOMENT)[index])
    rows = by_turn(batch)
    present = torch.zeros(9, dtype=torch.bool).index_fill(0, rows.traj, value=True)
    if bool(present.all()):
        assert torch.equal(WidestGroups()(rows, MOMENT), WidestGroups()(batch, MOMENT)[rows.traj])
        assert group_means(rows) == pytest.approx(group_means(batch), abs=1e-12)


def test_ties_go_to_the_first_group_and_equal_returns_have_no_spread() -> None:
    batch = random_batch(0, groups=4, size=3)
    batch = batch.with_(reward=torch.tensor([0.1] * 3 + [0, 1, 0] * 2 + [0.7] * 3, dtype=torch.float64))
    assert returns_of(batch).std[[0, 3]].tolist() == [0, 0]
    assert WidestGroups(0.75)(batch, Moment(1, 10)).view(4, 3)[:, 0].tolist() == [True, True, True, False]
    assert WidestGroups(0.25)(batch, Moment(1, 10)).view(4, 3)[:, 0].tolist() == [False, True, False, False]


def test_group_means_are_of_what_is_left_with_all_its_returns() -> None:
    batch = random_batch(1)
    means = batch.reward.view(3, 3).mean(1).tolist()
    assert group_means(batch) == pytest.approx(means)
    kept = torch.tensor([True, False, False] + [False] * 3 + [True] * 3)
    assert group_means(batch.with_(kept=kept)) == pytest.approx([means[0], means[2]])
    assert group_means(batch.with_(kept=torch.zeros(9, dtype=torch.bool))) == []


# Covariance


@CHECK
@given(seed=SEEDS, advantages=st.floats(-5, 5), logprobs=st.floats(-5, 5), scale=st.floats(-4, 4))
def test_shifts_leave_the_covariance_and_scales_scale_it(
    seed: int, advantages: float, logprobs: float, scale: float
) -> None:
    logprob, _, advantage, mask = columns(seed)
    value = covariance(advantage, logprob, mask).value
    assert not value.requires_grad
    assert not value[~mask].any()
    assert float(value.sum()) == pytest.approx(
        float((advantage[mask] * (logprob[mask] - logprob[mask].mean())).sum().detach()), abs=1e-9
    )
    close(covariance(advantage + advantages, logprob + logprobs, mask).value, value)
    close(covariance(scale * advantage, logprob, mask).value, scale * value)


@CHECK
@given(seed=SEEDS)
def test_picked_tokens_lose_their_gradient_and_the_others_keep_theirs(seed: int) -> None:
    logprob, old, advantage, mask = columns(seed)
    result, gradient = clipped(seed)
    plain = surrogate(logprob, old, advantage, mask, clip_low=0.2, clip_high=0.28, dual_clip=None).loss
    (expected,) = torch.autograd.grad(aggregate(plain, mask, "token-mean"), logprob)
    tokens, eligible = int(mask.sum()), int(result.eligible.sum())
    assert int(result.picked.sum()) == min(eligible, max(1, int(0.3 * tokens)))
    assert not (result.picked & ~result.eligible).any()
    assert not (result.eligible & (~mask | result.clipped)).any()
    assert torch.equal(gradient, torch.where(result.picked, 0, expected))
    assert torch.equal(result.loss, torch.where(result.picked, 0, plain))
    assert torch.equal(clipped(seed)[0].picked, result.picked), "a fixed seed picks the same"


@CHECK
@given(seed=SEEDS)
def test_without_an_eligible_token_it_is_the_plain_surrogate(seed: int) -> None:
    logprob, old, advantage, mask = columns(seed)
    result, _ = clipped(seed, low=1e9)
    plain = surrogate(logprob, old, advantage, mask, clip_low=0.2, clip_high=0.28, dual_clip=None)
    assert not result.picked.any()
    assert torch.equal(result.loss, plain.loss)


@CHECK
@given(seed=SEEDS)
def test_a_choice_made_on_the_whole_serves_its_parts(seed: int) -> None:
    logprob, old, advantage, mask = columns(seed)
    result, gradient = clipped(seed)
    with torch.no_grad():
        picked = clip_cov(logprob, old, advantage, mask, generator=pick_generator(seed, 3), **WIDE).picked
    loss = torch.zeros((), dtype=torch.float64)
    for rows in (slice(0, 2), slice(2, 3), slice(3, 5)):
        part = [x[rows] for x in (logprob, old, advantage, mask)]
        plain = surrogate(*part, clip_low=0.2, clip_high=0.28, dual_clip=None).loss
        loss = loss + torch.where(picked[rows], 0, plain).sum() / mask.sum()
    close(loss, aggregate(result.loss, mask, "token-mean"))
    close(torch.autograd.grad(loss, logprob)[0], gradient)


@CHECK
@given(seed=SEEDS, order=st.permutations(range(5)), pad=st.integers(0, 3))
def test_permuting_rows_permutes_eligibility_and_padding_changes_nothing(seed: int, order: list[int], pad: int) -> None:
    given_columns, index = columns(seed), torch.tensor(order)
    result = clip_cov(*given_columns, generator=pick_generator(0, 0), **WIDE)
    other = clip_cov(*(x[index] for x in given_columns), generator=pick_generator(0, 0), **WIDE)
    assert torch.equal(other.eligible, result.eligible[index])
    wide = [torch.nn.functional.pad(x, (0, pad), value=1e9) for x in given_columns[:3]]
    mask = torch.nn.functional.pad(given_columns[3], (0, pad))
    for ours, one in (
        (clip_cov(*wide, mask, generator=pick_generator(0, 0), **WIDE), result),
        (kl_cov(*wide, mask, rate=0.2), kl_cov(*given_columns, rate=0.2)),
    ):
        assert torch.equal(ours.picked[:, :9], one.picked)
        assert torch.equal(ours.loss[:, :9], one.loss)
        assert not ours.loss[:, 9:].any()


@CHECK
@given(seed=SEEDS)
def test_replay_at_the_behaviour_policy_has_the_advantage_as_gradient(seed: int) -> None:
    logprob, _, advantage, mask = columns(seed)
    again = advantage.abs() + 0.1
    result = clip_cov(logprob, logprob.detach(), again, mask, generator=pick_generator(seed, 0), **WIDE)
    (gradient,) = torch.autograd.grad(result.loss.sum(), logprob)
    close(gradient, torch.where(mask & ~result.picked, -again, 0))


@CHECK
@given(seed=SEEDS)
def test_gradients_are_finite_differences(seed: int) -> None:
    """The choice of tokens is a constant, so only the loss moves with a log-prob."""
    logprob, old, advantage, mask = columns(seed)
    everywhere = [torch.where(mask, x.detach(), 0) for x in (logprob, old, advantage)]
    start = everywhere[0].clone().requires_grad_()

    def loss(x: Tensor, kind: str) -> Tensor:
        if kind == "clip":
            generator = pick_generator(seed, 0)
            return clip_cov(x, *everywhere[1:], mask, generator=generator, **WIDE).loss.sum()
        return kl_cov(x, *everywhere[1:], mask, rate=0.2).loss.sum()

    for kind in ("clip", "kl"):
        (gradient,) = torch.autograd.grad(loss(start, kind), start)
        for row, column in mask.nonzero().tolist()[::5]:
            step = torch.zeros_like(start)
            step[row, column] = 1e-7
            with torch.no_grad():
                slope = (loss(start + step, kind) - loss(start - step, kind)) / 2e-7
            assert float(gradient[row, column]) == pytest.approx(float(slope), abs=2e-6, rel=1e-6)


@CHECK
@given(seed=SEEDS, rate=st.floats(0, 1))
def test_kl_cov_holds_the_tokens_of_largest_covariance(seed: int, rate: float) -> None:
    logprob, old, advantage, mask = columns(seed)
    result = kl_cov(logprob, old, advantage, mask, rate=rate, coeff=0.5)
    value, tokens = covariance(advantage, logprob, mask).value, int(mask.sum())
    assert int(result.picked.sum()) == max(1, math.floor(rate * tokens))
    left = value[mask & ~result.picked]
    assert not len(left) or value[result.picked].min() >= left.max()
    ratio = torch.where(mask, logprob - old, 0).exp()
    drift = torch.where(result.picked, logprob - old, 0).abs()
    close(result.loss, torch.where(mask, -advantage * ratio + 0.5 * drift, 0))


def test_kl_cov_breaks_ties_row_by_row() -> None:
    logprob, advantage = torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    result = kl_cov(logprob, logprob, advantage, torch.ones(2, 2), rate=0.75)
    assert result.picked.tolist() == [[True, True], [True, False]]


def test_picks_are_uniform_and_differ_by_step() -> None:
    eligible = torch.ones(2, 5, dtype=torch.bool)
    counts = sum(pick(eligible, 10, 0.2, pick_generator(1, step)).double() for step in range(2000))
    assert isinstance(counts, Tensor)
    assert counts.sum() == 4000
    assert counts.sub(400).abs().max() < 80
    assert len({pick_generator(*key).initial_seed() for key in ((1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2, 0))}) == 4


@pytest.mark.parametrize("inside", [False, True])
def test_bad_columns_stay_finite(inside: bool) -> None:
    mask = torch.full((2, 3), inside)
    logprob = torch.full((2, 3), -math.inf, requires_grad=True)
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    for result in (
        clip_cov(logprob, zeros, ones, mask, generator=pick_generator(0, 0)),
        kl_cov(logprob, zeros, ones, mask),
    ):
        assert result.loss.isfinite().all()
        (gradient,) = torch.autograd.grad(result.loss.sum(), logprob)
        assert not gradient.any()


def test_padding_of_a_batch_leaves_groups_alone() -> None:
    batch = random_batch(3)
    assert torch.equal(WidestGroups()(padded(batch, 3, math.nan), MOMENT), WidestGroups()(batch, MOMENT))
