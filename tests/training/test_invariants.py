"""What must hold whatever the numbers: the invariants of the base algorithms and of EPO, on random batches."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.epo_terms import EntropyTerms, epo_terms
from torch import Tensor

from palaestra.training.advantage import group_advantage
from palaestra.training.aggregate import MODES, aggregate, token_weights, weighted_sum
from palaestra.training.entropy import EntropyOptions, phase_weight
from palaestra.training.entropy_history import EntropyHistory, EntropyRecord
from palaestra.training.importance import truncated_importance
from palaestra.training.kl import kl_estimate
from palaestra.training.logprob import logprob_entropy
from palaestra.training.surrogate import surrogate

SETTINGS = settings(max_examples=20, deadline=None, derandomize=True)
F64 = torch.float64
SEEDS = st.integers(0, 10**6)
COEFFICIENT, L_MT = 0.1, 0.25


@dataclasses.dataclass(frozen=True)
class Columns:
    """A random batch of trajectories, one row each; garbage of any finite size where masked out."""

    logprob: Tensor
    old: Tensor
    rollout: Tensor
    ref: Tensor
    entropy: Tensor
    advantage: Tensor
    mask: Tensor
    step_id: Tensor
    traj: Tensor

    def map(self, change: Any) -> Columns:
        return Columns(**{f.name: change(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def rows(self, index: Tensor) -> Columns:
        return self.map(lambda column: column[index])


def batch(seed: int, rows: int = 5, length: int = 9, *, empty: bool = True) -> Columns:
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, length, generator=g) < 0.7
    mask[0] &= not empty
    mask[1, 0] = True
    turn = torch.randint(0, 2, (rows, length), generator=g).cumsum(1)
    garbage = torch.randn(rows, length, generator=g, dtype=F64) * 1e6

    def column(scale: float, shift: float = 0.0) -> Tensor:
        values = torch.randn(rows, length, generator=g, dtype=F64) * scale + shift
        return torch.where(mask, values, garbage)

    old = column(0.5, -1.0)
    return Columns(
        logprob=old + torch.where(mask, column(0.3), garbage),
        old=old,
        rollout=old + torch.where(mask, column(0.3), garbage),
        ref=column(0.5, -1.0),
        entropy=torch.where(mask, column(1.0).abs(), garbage),
        advantage=column(1.0),
        mask=mask,
        step_id=torch.where(mask, turn, -1),
        traj=torch.arange(rows) * 3 + 1,
    )


REFERENCE = torch.tensor(0.8, dtype=F64)


def terms_of(
    c: Columns, weights: Tensor, reference: Tensor | None = REFERENCE, beta: float = 1.5, **o: Any
) -> EntropyTerms:
    options = EntropyOptions(**{"entropy_coeff": COEFFICIENT, "low_ratio": 0.5, "high_ratio": 1.5, **o})
    return epo_terms(c.entropy, c.mask, c.step_id, weights, reference=reference, beta=beta, options=options)


def nested(c: Columns) -> Tensor:
    return token_weights(c.mask, "traj-turn-token", step_id=c.step_id, traj=c.traj)


def whole_loss(c: Columns, weights: Tensor, nested_weights: Tensor, w: Tensor | None = None) -> Tensor:
    """Everything at once: weighted surrogate, KL and EPO's terms."""
    w = truncated_importance(c.old, c.rollout, c.mask) if w is None else w
    loss = weighted_sum(w * surrogate(c.logprob, c.old, c.advantage, c.mask).loss, c.mask, weights)
    loss = loss + 0.01 * weighted_sum(kl_estimate(c.logprob, c.ref), c.mask, weights)
    return loss + terms_of(c, nested_weights).loss


def gradients(c: Columns, parts: list[slice], mode: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and its gradients to log-prob and entropy, accumulated over `parts` of the rows."""
    logprob, entropy = c.logprob.clone().requires_grad_(), c.entropy.clone().requires_grad_()
    live = dataclasses.replace(c, logprob=logprob, entropy=entropy)
    weights = token_weights(c.mask, mode, step_id=c.step_id, traj=c.traj, constant=10.0)
    inner = nested(c)
    total = torch.zeros((), dtype=F64)
    for part in parts:
        loss = whole_loss(live.map(lambda x, p=part: x[p]), weights[part], inner[part])
        loss.backward()
        total = total + loss.detach()
    assert logprob.grad is not None
    assert entropy.grad is not None
    return total, logprob.grad, entropy.grad


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# The whole loss


@SETTINGS
@given(seed=SEEDS, mode=st.sampled_from(MODES), cuts=st.sets(st.integers(1, 4), max_size=4))
def test_micro_batches_do_not_change_the_gradient(seed: int, mode: str, cuts: set[int]) -> None:
    c = batch(seed)
    edges = [0, *sorted(cuts), 5]
    split = gradients(c, [slice(a, b) for a, b in pairwise(edges)], mode)
    assert_close(split, gradients(c, [slice(0, 5)], mode))


@SETTINGS
@given(seed=SEEDS, mode=st.sampled_from(MODES), columns=st.integers(1, 4), scale=st.sampled_from([0.0, 1.0, 1e12]))
def test_padding_does_not_change_anything(seed: int, mode: str, columns: int, scale: float) -> None:
    c = batch(seed)
    extra = torch.randn(5, columns, generator=torch.Generator().manual_seed(seed), dtype=F64) * scale

    def pad(column: Tensor) -> Tensor:
        if column.ndim == 1:
            return column
        fill = extra if column.is_floating_point() else torch.full_like(extra, -1)
        return torch.cat((column, torch.zeros_like(extra) if column.dtype == torch.bool else fill), 1).to(column.dtype)

    loss, *grads = gradients(c, [slice(0, 5)], mode)
    padded_loss, *padded = gradients(c.map(pad), [slice(0, 5)], mode)
    assert_close(padded_loss, loss)
    for a, b in zip(padded, grads, strict=True):
        assert_close(a[:, :-columns], b)
        assert a[:, -columns:].eq(0).all()


@SETTINGS
@given(seed=SEEDS, mode=st.sampled_from(MODES))
def test_masked_entries_have_no_gradient_and_no_influence(seed: int, mode: str) -> None:
    c = batch(seed)
    huge = c.map(lambda x: torch.where(c.mask, x, 1e300) if x.is_floating_point() else x)
    expected = gradients(c, [slice(0, 5)], mode)
    assert_close(gradients(huge, [slice(0, 5)], mode), expected, 0.0)
    assert all(g[~c.mask].eq(0).all() for g in expected[1:])


@SETTINGS
@given(seed=SEEDS, mode=st.sampled_from(MODES), order=st.permutations(range(5)))
def test_permuting_rows_permutes_gradients(seed: int, mode: str, order: list[int]) -> None:
    c, index = batch(seed), torch.tensor(order)
    loss, *grads = gradients(c, [slice(0, 5)], mode)
    other_loss, *others = gradients(c.rows(index), [slice(0, 5)], mode)
    assert_close(other_loss, loss)
    assert_close(others, [g[index] for g in grads])


@SETTINGS
@given(seed=SEEDS)
def test_step_rows_and_trajectory_rows_agree(seed: int) -> None:
    """One row per turn, or the whole trajectory in a row: same token-mean, nested mean and group statistics."""
    c = batch(seed)
    pieces = [(row, turn) for row in range(5) for turn in c.step_id[row].unique().tolist() if turn >= 0]
    take = torch.tensor([row for row, _ in pieces])
    turns = torch.tensor([turn for _, turn in pieces])[:, None]
    steps = c.rows(take)
    own = steps.step_id == turns
    steps = dataclasses.replace(steps, mask=own, step_id=torch.where(own, steps.step_id, -1))
    for mode in ("token-mean", "traj-turn-token"):
        whole = aggregate(c.entropy, c.mask, mode, step_id=c.step_id, traj=c.traj)
        assert_close(aggregate(steps.entropy, steps.mask, mode, step_id=steps.step_id, traj=steps.traj), whole)
    for field in ("bonus", "smoothing", "loss"):
        assert_close(getattr(terms_of(steps, nested(steps)), field), getattr(terms_of(c, nested(c)), field))
    reward, group = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=F64), torch.zeros(5).long()
    present = take.unique()
    by_row = group_advantage(reward[present], group[present], c.traj[present])
    by_step = group_advantage(reward[take], group[take], steps.traj)
    assert_close(by_step, by_row[torch.searchsorted(present, take)])


# Advantage


def rewards(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """12 rows of 8 trajectories in 3 groups, one of them a singleton."""
    g = torch.Generator().manual_seed(seed)
    traj = torch.cat((torch.arange(8), torch.randint(0, 8, (4,), generator=g)))
    return torch.randn(8, generator=g, dtype=F64)[traj], torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])[traj], traj


NORMALISE = st.sampled_from(["std", "popstd", "mean", "rloo"])
WEIGHTING = st.sampled_from(["trajectory", "row"])


@SETTINGS
@given(seed=SEEDS, normalise=NORMALISE, weighting=WEIGHTING, order=st.permutations(range(12)))
def test_advantage_follows_permutations_and_relabelling(
    seed: int, normalise: str, weighting: str, order: list[int]
) -> None:
    reward, group, traj = rewards(seed)
    options: dict[str, Any] = {"normalise": normalise, "weighting": weighting}
    expected, index = group_advantage(reward, group, traj, **options), torch.tensor(order)
    assert_close(group_advantage(reward[index], group[index], traj[index], **options), expected[index], 1e-9)
    relabelled = group_advantage(reward, 100 - 7 * group, 50 - traj, **options)
    assert_close(relabelled, expected, 1e-9)


@SETTINGS
@given(seed=SEEDS, normalise=NORMALISE, weighting=WEIGHTING, shift=st.floats(-100, 100), scale=st.floats(0.1, 50))
def test_advantage_ignores_shifts_and_std_ignores_scale(
    seed: int, normalise: str, weighting: str, shift: float, scale: float
) -> None:
    reward, group, traj = rewards(seed)
    options: dict[str, Any] = {"normalise": normalise, "weighting": weighting}
    expected = group_advantage(reward, group, traj, **options)
    shifts = torch.tensor([shift, -shift, 3 * shift], dtype=F64)[group]
    assert_close(group_advantage(reward + shifts, group, traj, **options), expected, 1e-8)
    scaled = group_advantage(reward * scale, group, traj, **options)
    assert_close(scaled, expected if "std" in normalise else expected * scale, 1e-3 if "std" in normalise else 1e-8)


@SETTINGS
@given(seed=SEEDS)
def test_centred_advantages_of_a_group_sum_to_zero(seed: int) -> None:
    reward, group, traj = (x[:8] for x in rewards(seed))
    advantage = group_advantage(reward, group, traj, normalise="mean")
    for g in range(3):
        assert abs(float(advantage[group == g].sum())) < 1e-12


# Surrogate, KL, importance


@SETTINGS
@given(seed=SEEDS)
def test_on_policy_the_surrogate_is_the_policy_gradient(seed: int) -> None:
    c = batch(seed)
    logprob = c.old.clone().requires_grad_()
    result = surrogate(logprob, c.old, c.advantage, c.mask)
    (gradient,) = torch.autograd.grad(result.loss.sum(), logprob)
    expected = torch.where(c.mask, -c.advantage, 0)
    assert_close(result.loss.detach(), expected)
    assert_close(gradient, expected)
    assert result.ratio[c.mask].eq(1).all()
    assert not result.clipped.any()
    assert not result.dual_clipped.any()


@SETTINGS
@given(seed=SEEDS)
def test_limits_of_the_clips(seed: int) -> None:
    c = batch(seed)
    columns = c.logprob.requires_grad_(), c.old, c.advantage, c.mask
    plain, far = surrogate(*columns, dual_clip=None), surrogate(*columns, dual_clip=1e30)
    assert_close(far.loss, plain.loss, 0.0)
    free = surrogate(*columns, clip_low=math.inf, clip_high=math.inf, dual_clip=None)
    ratio = torch.where(c.mask, (c.logprob - c.old), 0).exp()
    expected = torch.where(c.mask, -c.advantage * ratio, 0)
    assert_close(free.loss, expected)
    pair = [torch.autograd.grad(x.sum(), c.logprob, retain_graph=True)[0] for x in (free.loss, expected)]
    assert_close(pair[0], pair[1])


@SETTINGS
@given(seed=SEEDS)
def test_gradient_of_the_surrogate_is_minus_a_r_or_zero(seed: int) -> None:
    c = batch(seed)
    logprob = c.logprob.clone().requires_grad_()
    result = surrogate(logprob, c.old, c.advantage, c.mask, clip_low=0.1, clip_high=0.15, dual_clip=1.3)
    (gradient,) = torch.autograd.grad(result.loss.sum(), logprob)
    active = c.mask & ~result.clipped & ~result.dual_clipped
    assert_close(gradient, torch.where(active, -c.advantage * result.ratio, 0))


@SETTINGS
@given(seed=SEEDS)
def test_kl_estimates(seed: int) -> None:
    c = batch(seed)
    logprob, ref = c.logprob[c.mask].clone().requires_grad_(), c.ref[c.mask]
    assert kl_estimate(logprob, ref, "k2").ge(0).all()
    assert kl_estimate(logprob, ref, "k3").ge(0).all()
    same = ref.clone().requires_grad_()
    for kind in ("k1", "k2", "k3"):
        assert kl_estimate(same, ref, kind).eq(0).all()
    assert torch.autograd.grad(kl_estimate(same, ref, "k3").sum(), same)[0].eq(0).all()


@SETTINGS
@given(seed=SEEDS, cap=st.floats(1, 5), level=st.sampled_from(["token", "sequence"]))
def test_importance_weights(seed: int, cap: float, level: Any) -> None:
    c = batch(seed)
    old = c.old.clone().requires_grad_()
    weight = truncated_importance(old, c.rollout, c.mask, level=level, cap=cap)
    assert not weight.requires_grad
    assert weight.le(cap).all()
    assert weight[~c.mask].eq(0).all()
    assert truncated_importance(c.old, c.old, c.mask, level=level)[c.mask].eq(1).all()
    normalised = truncated_importance(c.old, c.rollout, c.mask, level=level, cap=cap, normalise=True)
    assert float(normalised[c.mask].mean()) == pytest.approx(1.0)


# Entropy from logits


@SETTINGS
@given(seed=SEEDS, vocab=st.integers(2, 40), scale=st.sampled_from([0.0, 0.1, 3.0, 100.0]))
def test_entropy_bounds_and_gradient_sum(seed: int, vocab: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = (torch.randn(4, vocab, generator=g, dtype=F64) * scale).requires_grad_()
    eye, labels = torch.eye(vocab, dtype=F64), torch.zeros(4, dtype=torch.int64)
    _, entropy = logprob_entropy(logits, eye, labels, chunk=3, vocab_chunk=7)
    assert entropy.ge(0).all()
    assert entropy.le(math.log(vocab) + 1e-12).all()
    if scale == 0:
        assert_close(entropy.detach(), torch.full((4,), math.log(vocab), dtype=F64))
    (gradient,) = torch.autograd.grad(entropy.sum(), logits)
    assert_close(gradient.sum(1), torch.zeros(4, dtype=F64))


# EPO


def total(c: Columns, **options: Any) -> tuple[Tensor, Tensor]:
    """L_MT plus the terms, and the gradient to the entropies."""
    entropy = c.entropy.clone().requires_grad_()
    live = dataclasses.replace(c, entropy=entropy)
    reference = options.pop("reference_value", REFERENCE)
    loss = L_MT + terms_of(live, nested(c), reference, **options).loss
    (gradient,) = torch.autograd.grad(loss, entropy)
    return loss.detach(), gradient


@SETTINGS
@given(seed=SEEDS, slope=st.floats(0, 10), low=st.floats(0, 1), high=st.floats(1, 3), reference=st.floats(0, 5))
def test_lambda_zero_is_the_policy_loss(seed: int, slope: float, low: float, high: float, reference: float) -> None:
    value = torch.tensor(reference, dtype=F64)
    options = {"slope": slope, "low_ratio": low, "high_ratio": high, "reference_value": value}
    loss, gradient = total(batch(seed), entropy_coeff=0.0, **options)
    assert loss == L_MT
    assert gradient.eq(0).all()


@SETTINGS
@given(seed=SEEDS, reference=st.sampled_from([0.0, 0.8, 5.0]))
def test_without_a_corridor_it_is_the_bonus_alone(seed: int, reference: float) -> None:
    c, value = batch(seed), torch.tensor(reference, dtype=F64)
    loss, gradient = total(c, smoothing=False)
    assert loss == L_MT - COEFFICIENT * aggregate(c.entropy, c.mask, "traj-turn-token", step_id=c.step_id)
    for same in (
        total(c, slope=0.0, reference_value=value),
        total(c, low_ratio=0.0, high_ratio=math.inf, reference_value=value),
        total(c, reference_value=None),
    ):
        assert same[0] == loss
        assert torch.equal(same[1], gradient)


@SETTINGS
@given(seed=SEEDS)
def test_the_indicator_has_no_gradient(seed: int) -> None:
    c = batch(seed)
    assert torch.equal(total(c, penalty="indicator")[1], total(c, slope=0.0)[1])


@SETTINGS
@given(seed=SEEDS)
def test_inside_the_corridor_there_is_no_smoothing(seed: int) -> None:
    c = batch(seed)
    inside = c.entropy[c.mask]
    reference = torch.tensor(1.0, dtype=F64)
    options = {"low_ratio": float(inside.min()) * 0.99, "high_ratio": float(inside.max()) * 1.01}
    for penalty in ("hinge", "indicator"):
        assert terms_of(c, nested(c), reference, penalty=penalty, **options).smoothing == 0


@SETTINGS
@given(seed=SEEDS, scale=st.floats(0.01, 100))
def test_scaling_entropies_and_history_scales_the_terms(seed: int, scale: float) -> None:
    c = batch(seed)
    larger = dataclasses.replace(c, entropy=c.entropy * scale)
    one, other = terms_of(c, nested(c)), terms_of(larger, nested(c), REFERENCE * scale)
    assert_close(other.bonus, one.bonus * scale, 1e-11)
    assert_close(other.smoothing, one.smoothing * scale, 1e-11)


@SETTINGS
@given(seed=SEEDS, slope=st.floats(0, 0.6), k=st.integers(0, 30))
def test_gradient_to_each_entropy_is_the_published_one(seed: int, slope: float, k: int) -> None:
    c, beta = batch(seed), phase_weight(k, 20)
    _, gradient = total(c, slope=slope, beta=beta)
    low, high = 0.5 * REFERENCE, 1.5 * REFERENCE
    side = (c.entropy > high).double() - (c.entropy < low).double()
    expected = torch.where(c.mask, COEFFICIENT * nested(c) * (-1 + beta * slope * side), 0)
    assert_close(gradient, expected)
    if slope * beta < 1:
        assert gradient[c.mask].lt(0).all()


@SETTINGS
@given(seed=SEEDS, copies=st.integers(2, 3))
def test_duplicating_trajectories_changes_nothing(seed: int, copies: int) -> None:
    c = batch(seed)
    many = c.rows(torch.arange(5).repeat(copies))
    many = dataclasses.replace(many, traj=torch.arange(5 * copies))
    one, other = terms_of(c, nested(c)), terms_of(many, nested(many))
    assert_close(other.bonus, one.bonus)
    assert_close(other.smoothing, one.smoothing)


def single(turns: list[list[float]]) -> Columns:
    """One trajectory from its turns' entropies."""
    entropy = torch.tensor([[h for turn in turns for h in turn]], dtype=F64)
    step_id = torch.tensor([[t for t, turn in enumerate(turns) for _ in turn]])
    mask = torch.ones_like(step_id, dtype=torch.bool)
    return Columns(*[entropy] * 6, mask=mask, step_id=step_id, traj=torch.zeros(1).long())


TURNS = st.lists(st.lists(st.floats(0, 3), min_size=1, max_size=4), min_size=1, max_size=5)


@SETTINGS
@given(turns=TURNS, which=st.integers(0, 4))
def test_duplicating_tokens_and_turns(turns: list[list[float]], which: int) -> None:
    t = which % len(turns)
    base = terms_of(single(turns), nested(single(turns)))
    longer = [[*turn, turn[0]] if i == t else turn for i, turn in enumerate(turns)]
    change = (sum(longer[t]) / len(longer[t]) - sum(turns[t]) / len(turns[t])) / len(turns)
    assert_close(terms_of(single(longer), nested(single(longer))).bonus, base.bonus + change)
    means = [sum(turn) / len(turn) for turn in turns]
    another = [*turns, [sum(means) / len(means)]]
    assert_close(terms_of(single(another), nested(single(another))).bonus, base.bonus)


@SETTINGS
@given(seed=SEEDS, turns=st.integers(1, 3), tokens=st.integers(1, 3))
def test_nested_is_token_mean_where_all_are_equally_long(seed: int, turns: int, tokens: int) -> None:
    g = torch.Generator().manual_seed(seed)
    entropy = torch.rand(4, turns * tokens, generator=g, dtype=F64)
    step_id = torch.arange(turns).repeat_interleave(tokens).expand(4, -1)
    mask = torch.ones_like(step_id)
    assert_close(token_weights(mask, "traj-turn-token", step_id=step_id), token_weights(mask, "token-mean"))
    assert_close(aggregate(entropy, mask, "traj-turn-token", step_id=step_id), aggregate(entropy, mask, "token-mean"))


@SETTINGS
@given(iterations=st.integers(1, 400), gamma=st.floats(0.1, 5))
def test_phase_weight_falls_from_two_and_stays_above_one(iterations: int, gamma: float) -> None:
    weights = [phase_weight(k, iterations, gamma) for k in range(iterations + 2)]
    assert weights[0] == 2.0
    assert all(a > b >= 1 for a, b in pairwise(weights[:2]))
    assert all(a >= b >= 1 for a, b in pairwise(weights))


@SETTINGS
@given(values=st.lists(st.floats(0, 5), min_size=1, max_size=8), latest=st.floats(0, 5))
def test_history_is_append_only_and_ignores_the_current_step(values: list[float], latest: float) -> None:
    history = EntropyHistory()
    for value in values:
        before = history.records
        history.append(EntropyRecord(value, (value,)))
        assert history.records[:-1] == before
    reference = history.reference()
    assert reference is not None
    assert float(reference) == pytest.approx(sum(values) / len(values))
    assert not reference.requires_grad
    history.append(EntropyRecord(latest, ()))
    assert history.records[:-1] == tuple(EntropyRecord(v, (v,)) for v in values)


def test_no_gradient_into_reference_or_history() -> None:
    c = batch(0)
    entropy = c.entropy.clone().requires_grad_()
    record = EntropyRecord.measure(entropy, c.mask, c.step_id, c.traj)
    assert isinstance(record.mean, float)
    reference = torch.tensor(0.8, dtype=F64, requires_grad=True)
    loss = terms_of(dataclasses.replace(c, entropy=entropy), nested(c), reference).loss
    assert torch.autograd.grad(loss, reference, allow_unused=True) == (None,)


@SETTINGS
@given(values=st.lists(st.floats(0.1, 5), min_size=2, max_size=6), stop=st.integers(1, 5))
def test_resuming_restores_corridor_and_phase(values: list[float], stop: int) -> None:
    """Saved after `stop` iterations and loaded, the remaining losses are those of the run that never stopped."""
    c, stop = batch(1), min(stop, len(values) - 1)

    def losses(history: EntropyHistory, first: int, last: int) -> list[float]:
        out = []
        for k in range(first, last):
            beta = phase_weight(k, len(values))
            out.append(float(terms_of(c, nested(c), history.reference(), beta=beta).loss))
            history.append(EntropyRecord(values[k], ()))
        return out

    whole = losses(EntropyHistory(), 0, len(values))
    history = EntropyHistory()
    head = losses(history, 0, stop)
    resumed = EntropyHistory()
    resumed.load_state_dict(json.loads(json.dumps(history.state_dict())))
    assert head + losses(resumed, stop, len(values)) == whole
