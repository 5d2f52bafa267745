"""Self-imitation as it trains: what is replayed, with which gradient, and that nothing of it moves the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.updates import assert_same, build, episodes, learner, played, update
from torch import Tensor

from palaestra.errors import CheckpointError, ConfigError, TrainingError
from palaestra.training.aggregate import aggregate
from palaestra.training.algorithm import Algorithm
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import fingerprint
from palaestra.training.curriculum import imitation_weight, tool_call_weight
from palaestra.training.forward import Flat, Scores, micro_batches
from palaestra.training.learner import Learner
from palaestra.training.past import Past
from palaestra.training.plugins.clip_cov import ClipCov
from palaestra.training.policy_loss import Bounds
from palaestra.training.rows import build_rows
from palaestra.training.seams import Extra, Moment, Tokens
from palaestra.training.step import gather
from palaestra.training.stored import Stored, put

CHECK = settings(max_examples=20, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)
OWN = "algorithm.settings.self_imitation"
SPEAR = ["algorithm.name=spear", f"{OWN}.warmup=0"]
"""Replay counts in full from the first iteration on."""
ALONE = ["algorithm.name=grpo", "algorithm.plugins=[self_imitation]", "algorithm.normalise=mean", f"{OWN}.warmup=0"]
FREE = [*ALONE, f"{OWN}.loss=plain"]
QUIET = ["well_formed.incomplete=false", "outcome_scale.factor=1", "tool_reward.schedule=none", "clip_cov.rate=0"]
OFF = [f"algorithm.settings.{each}" for each in QUIET]
"""What SPEAR has beside Dr.BoT and self-imitation, switched off."""


def past(algorithm: Algorithm) -> Past:
    found = algorithm.parts.trackers["self_imitation"]
    assert isinstance(found, Past)
    return found


def scored(batch: Batch, subject: Algorithm, moment: Moment) -> Batch:
    """With the old policy's columns and advantages, as a replay sees it."""
    batch = subject.select(batch, moment).with_(old_logprob=batch.rollout_logprob, old_entropy=batch.rollout_entropy)
    return subject.prepare(batch, moment)


def replays(subject: Algorithm, moment: Moment, seed: int = 0, steps: int = 1) -> list[Extra]:
    """Self-imitation's parts of an iteration."""
    parts = subject.parts.replays[0](scored(played(seed), subject, moment), moment, steps)
    return [part for part in parts if part is not None]


def tokens(extra: Extra, moved: float = 0.0, seed: int = 0) -> Tokens:
    """All policy tokens of a replayed batch, under a policy near the one that played; with gradient, in float64."""
    row, column = extra.batch.mask.nonzero(as_tuple=True)
    where = row, column
    assert extra.batch.old_logprob is not None
    old = extra.batch.old_logprob[where].double()
    noise = torch.randn(len(old), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logprob = (old + moved * noise).requires_grad_()
    return gather(extra.batch, where, Scores(logprob, torch.zeros_like(old), {}))


def total(extra: Extra, at: Tokens) -> Tensor:
    """The part's loss."""
    where = extra.batch.mask
    return sum(
        ((term.weights(extra.batch)[where] * term.value(at).value.double()).sum() for term in extra.terms),
        torch.zeros((), dtype=torch.float64),
    )


def _fixed(at: Tokens) -> Tokens:
    """As gates see them."""
    return replace(at, logprob=at.logprob.detach())


# Nothing to replay is Dr.BoT


@pytest.mark.parametrize("how", ["coef", "cold", "mediocre"])
def test_without_replay_it_is_dr_bot_bit_for_bit(how: str) -> None:
    options = {"coef": [f"{OWN}.coef=0"], "cold": [f"{OWN}.warmup=100"], "mediocre": [f"{OWN}.warmup=0"]}[how]
    ours = learner("algorithm.name=spear", *OFF, *options, mini_batches=2)
    bot = learner("algorithm.name=dr_bot", OFF[0], mini_batches=2)
    if how == "mediocre":
        past(ours.algorithm).means.push([100.0] * 50)
    moment = Moment(0, 10)
    one, other = update(ours, played(), moment), update(bot, played(), moment)
    assert_same(one[1], other[1], atol=0.0)
    assert one[0].metrics["loss"] == other[0].metrics["loss"]
    assert fingerprint(ours.policy.model) == fingerprint(bot.policy.model)
    assert all(one[0].metrics.get(key, 0) == 0 for key in ("sil_surrogate", "sil_replayed"))


def test_replay_changes_the_update() -> None:
    ours, bot = learner(*SPEAR, *OFF), learner("algorithm.name=dr_bot", OFF[0])
    one, other = update(ours, played()), update(bot, played())
    assert one[0].metrics["sil_replayed"] == past(ours.algorithm).state_dict()["episodes"]["entries"].__len__() > 0
    assert any(not torch.equal(one[1][name], other[1][name]) for name in one[1])


# What is replayed


@CHECK
@given(
    rewards=st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=4, max_size=8), min_size=1, max_size=5)
)
def test_only_fresh_episodes_better_than_their_group_and_than_p50(rewards: list[list[float]]) -> None:
    subject = build(*ALONE, f"{OWN}.tolerate=1", f"{OWN}.replayed=3")
    means: list[float] = []
    for now, values in enumerate(rewards):
        batch = scored(build_rows(episodes(tuple(values), seed=now)).batch, subject, Moment(now, 10))
        means += [sum(v) / len(v) for v in (values[i : i + 4] for i in range(0, len(values), 4))]
        (extra,) = subject.parts.replays[0](batch, Moment(now, 10), 1)
        assert extra is not None
        p50 = float(torch.tensor(means, dtype=torch.float64).quantile(0.5))
        kept = past(subject).episodes.entries
        assert all(now - each.step <= 1 and each.advantage > 0 for each in kept)
        good = [each.reward for each in kept if each.reward > p50 + 1e-12]
        replayed = [float(extra.batch.reward[extra.batch.traj == t][0]) for t in sorted(set(extra.batch.traj.tolist()))]
        assert len(replayed) == min(3, len(good))
        assert set(replayed) <= set(good)
        assert extra.batch.advantage is not None
        assert not extra.batch.advantage.requires_grad
        for row, advantage in enumerate(extra.batch.advantage):
            inside = advantage[extra.batch.mask[row]]
            assert bool((inside > 0).all())
            torch.testing.assert_close(inside, torch.full_like(inside, float(extra.batch.reward[row]) - p50))


def test_stored_log_probs_are_the_learners_of_the_iteration_that_played() -> None:
    subject = learner(*ALONE)
    before = subject.score(played(0)).logprob
    first = subject.update(played(0), Moment(0, 10)).batch
    assert first.old_logprob is not None
    torch.testing.assert_close(first.old_logprob, before)
    subject.update(played(1), Moment(1, 10))
    old = [each for each in past(subject.algorithm).episodes.entries if each.step == 0]
    assert old
    known = [before[row][first.mask[row]].tolist() for row in range(len(before))]
    assert all(each.logprob.tolist() in known for each in old)


@CHECK
@given(seed=SEEDS, steps=st.integers(1, 9))
def test_the_parts_are_the_whole(seed: int, steps: int) -> None:
    (whole,) = replays(build(*ALONE), Moment(1, 10), seed)
    parts = replays(build(*ALONE), Moment(1, 10), seed, steps)
    assert len(parts) == steps
    assert sum(int(part.batch.mask.sum()) for part in parts) == int(whole.batch.mask.sum())
    rows = sorted(tuple(ids[:n].tolist()) for e in parts for ids, n in zip(e.batch.ids, e.batch.length, strict=True))
    assert rows == sorted(tuple(ids[:n].tolist()) for ids, n in zip(whole.batch.ids, whole.batch.length, strict=True))


def test_raising_all_returns_leaves_the_update_alone() -> None:
    rewards = (0, 1, 0, 1, 1, 0, 0, 1)
    for raised in (2.0, -5.0):
        one, other = (
            update(learner(*ALONE, mini_batches=2), build_rows(episodes(tuple(r + by for r in rewards))).batch)
            for by in (0.0, raised)
        )
        assert_same(one[1], other[1])
        assert one[0].metrics["sil_replayed"] == other[0].metrics["sil_replayed"] > 0


# The gradient


def test_at_the_policy_that_played_the_gradient_is_the_advantage() -> None:
    (extra,) = replays(build(*ALONE, f"{OWN}.low=0", f"{OWN}.rate=0.2"), Moment(1, 10))
    at = tokens(extra)
    noise = torch.randn(len(at.logprob), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = replace(at, logprob=noise.clone().requires_grad_(), old_logprob=noise, advantage=at.advantage * noise.exp())
    said = [gate(_fixed(at), extra.batch, Moment(1, 10)) for gate in extra.gates]
    weight = said[-1].weight
    assert weight is not None
    (gradient,) = torch.autograd.grad(extra.terms[0].value(replace(at, weight=weight)).value.sum(), at.logprob)
    assert 0 < int((weight == 0).sum()) < len(weight)
    torch.testing.assert_close(gradient, -at.advantage.double() * weight)
    assert said[0].log["clip_fraction"] == said[0].log["approx_kl"] == 0


@CHECK
@given(seed=SEEDS)
def test_the_gradient_is_the_finite_difference(seed: int) -> None:
    for loss, more in (("plain", 0.0), ("kl_cov", 0.5)):
        (extra,) = replays(build(*FREE, f"{OWN}.loss={loss}", f"{OWN}.kl_coeff={more}"), Moment(1, 10), seed % 7)
        at = tokens(extra, moved=0.3, seed=seed)
        marks = {
            name: m for gate in extra.gates for name, m in gate(_fixed(at), extra.batch, Moment(1, 10)).marks.items()
        }

        def value(logprob: Tensor, extra: Extra = extra, at: Tokens = at, marks: Any = marks) -> Tensor:
            free = torch.ones_like(logprob, dtype=torch.bool) if marks else None
            columns = at.entropy, at.old_logprob, at.rollout_logprob, at.advantage, at.step_id
            return total(extra, Tokens(logprob, *columns, unclipped=free, marks=marks))

        (gradient,) = torch.autograd.grad(value(at.logprob), at.logprob)
        for place in range(0, len(gradient), 7):
            step = torch.zeros_like(gradient)
            step[place] = 1e-6
            with torch.no_grad():
                slope = (value(at.logprob + step) - value(at.logprob - step)) / 2e-6
            assert float(gradient[place]) == pytest.approx(float(slope), abs=1e-6)


def test_the_update_is_the_sum_of_both_losses() -> None:
    """L = L_on + coef gamma L_sil, against the equations written out over the whole model."""
    moment, options = Moment(30, 100), [f"{OWN}.warmup=100", f"{OWN}.coef=2", f"{OWN}.loss=plain"]
    subject, base = learner(*ALONE, *options), learner("algorithm.name=grpo", "algorithm.normalise=mean")
    first = [update(each, played(0), Moment(0, 100)) for each in (subject, base)]
    assert_same(first[0][1], first[1][1], atol=0.0)
    gamma = 2 * imitation_weight(30, 100)
    again, model = played(1), subject.policy.model
    entries = list(past(subject.algorithm).episodes.entries)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ours, theirs = update(subject, again, moment), update(base, again, moment)
    fresh = [e for e in past(subject.algorithm).episodes.entries if e.step == 30]
    assert all(e.step == 0 for e in entries)
    model.load_state_dict(before, strict=False)
    p50 = past(subject.algorithm).means.p50()
    assert p50 is not None
    own = _written_out(subject, [e for e in fresh if e.reward > p50], p50)
    for name in own:
        torch.testing.assert_close(ours[1][name], theirs[1][name] + gamma * own[name], atol=1e-6, rtol=1e-4)
    assert ours[0].metrics["sil_weight"] == gamma
    assert any(bool(g.abs().max() > 1e-4) for g in own.values())


def _written_out(subject: Learner, chosen: list[Stored], p50: float) -> dict[str, Tensor]:
    advantage = torch.tensor([each.reward - p50 for each in chosen])
    batch = put(chosen, advantage)
    flat, model = Flat.of(batch), subject.policy.model
    (part,) = micro_batches(flat, batch.rows, 10**6)
    logprob = torch.zeros(batch.shape).masked_scatter(batch.mask, torch.zeros(int(batch.mask.sum())))
    logprob[flat.row[part.tokens], flat.column[part.tokens]] = subject.policy(batch, flat, part).logprob
    assert batch.old_logprob is not None
    assert batch.advantage is not None
    ratio = torch.where(batch.mask, logprob - batch.old_logprob, 0).exp()
    loss = -torch.minimum(batch.advantage * ratio, batch.advantage * ratio.clamp(0.8, 1.28))
    value = aggregate(loss, batch.mask, "seq-mean-token-mean")
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, parameters), strict=True))


# Clipping of covariances among the replayed


def warm(*overrides: str, double: bool = False, **config: Any) -> tuple[Learner, Batch, Moment]:
    """A learner that has learned twice, and what comes next."""
    subject = learner(*overrides, "optimiser.lr=3e-3", **config)
    if double:
        subject.policy.model.double()
    for iteration in range(2):
        subject.update(played(iteration), Moment(iteration, 10))
    return subject, played(2), Moment(2, 10)


def test_with_nothing_eligible_it_is_the_plain_loss_bit_for_bit() -> None:
    ours = update(*warm(*SPEAR, f"{OWN}.low=1e6", f"{OWN}.high=.inf", mini_batches=2))
    plain = update(*warm(*SPEAR, f"{OWN}.loss=plain", mini_batches=2))
    assert_same(ours[1], plain[1], atol=0.0)
    assert ours[0].metrics["sil_clip_cov_eligible"] == ours[0].metrics["sil_clip_cov_picked"] == 0


def test_picks_and_clips_are_logged_and_the_same_for_the_same_seed() -> None:
    options = [*SPEAR, f"{OWN}.low=0", f"{OWN}.high=.inf", f"{OWN}.rate=0.3"]
    one, other = (update(*warm(*options, mini_batches=2)) for _ in range(2))
    assert one[0].metrics == other[0].metrics
    assert one[0].metrics["sil_clip_cov_eligible"] > one[0].metrics["sil_clip_cov_picked"] > 0
    assert 0 < one[0].metrics["sil_clip_fraction"] < 1
    assert one[0].metrics["sil_age"] > 0
    assert one[0].metrics["sil_buffer"] >= one[0].metrics["sil_replayed"] > 0


@pytest.mark.parametrize("loss", ["clip_cov", "kl_cov", "plain"])
def test_micro_batches_change_nothing(loss: str) -> None:
    """In float64: rounding decides which of two tokens with nearly one covariance is picked."""
    options = [*SPEAR, f"{OWN}.low=0", f"{OWN}.high=.inf", f"{OWN}.rate=0.2", f"{OWN}.loss={loss}"]
    whole = update(*warm(*options, double=True, mini_batches=2, micro_batch_tokens=10**6))
    for size in (30, 60):
        parts = update(*warm(*options, double=True, mini_batches=2, micro_batch_tokens=size))
        assert_same(parts[1], whole[1])
        for key in ("loss", "sil_surrogate", "sil_clip_fraction", "sil_p50"):
            assert parts[0].metrics[key] == pytest.approx(whole[0].metrics[key], abs=1e-6)


def test_statistics_of_micro_batches_pick_in_each() -> None:
    options = [*SPEAR, f"{OWN}.low=0", f"{OWN}.high=.inf", f"{OWN}.rate=1e-9"]
    step = update(*warm(*options, micro_batch_tokens=30))[0].metrics["sil_clip_cov_picked"]
    micro = update(*warm(*options, f"{OWN}.scope=micro", micro_batch_tokens=30))[0].metrics["sil_clip_cov_picked"]
    assert step == 1
    assert micro is not None
    assert micro > 1


# Options


def test_separate_steps_come_behind_the_others() -> None:
    subject, batch, moment = warm(*SPEAR, f"{OWN}.separate_steps=true", mini_batches=2)
    rates: list[float] = []
    step = subject.optimiser.step
    subject.optimiser.step = lambda lr: rates.append(lr) or step(lr)  # type: ignore[func-returns-value,method-assign]
    metrics = subject.update(batch, moment).metrics
    assert len(rates) == 4
    assert metrics["sil_replayed"]
    joint, batch, moment = warm(*SPEAR, mini_batches=2)
    joint.update(batch, moment)
    assert fingerprint(joint.policy.model) != fingerprint(subject.policy.model)


def test_bursts_wait_then_take_a_power_of_two_and_forget() -> None:
    subject = build(*ALONE, f"{OWN}.burst=true", f"{OWN}.buffer=5")
    sizes = []
    for iteration in range(4):
        (extra,) = replays(subject, Moment(iteration, 10), iteration)
        sizes.append((len(set(extra.batch.traj.tolist())), len(past(subject).episodes.entries)))
    waited = next(place for place, (replayed, _) in enumerate(sizes) if replayed)
    assert waited > 0
    assert sizes[waited] == (4, 0)
    assert all(replayed == 0 for replayed, _ in sizes[:waited])


def test_a_decayed_advantage_is_the_one_it_had() -> None:
    subject = build(*ALONE, f"{OWN}.weight_decay=0.5")
    (extra,) = replays(subject, Moment(1, 10))
    kept = past(subject).episodes.entries
    assert extra.batch.advantage is not None
    found = [float(extra.batch.advantage[row][mask][0]) for row, mask in enumerate(extra.batch.mask)]
    assert found == pytest.approx([0.5 * each.advantage for each in kept])


def test_returns_are_divided_by_the_usual_spread_where_advantages_are() -> None:
    for options, divided in (
        (["algorithm.normalise=std"], True),
        ([f"{OWN}.std=true"], True),
        (["algorithm.normalise=std", f"{OWN}.std=false"], False),
    ):
        subject = build(*ALONE, *options)
        (extra,) = replays(subject, Moment(1, 10))
        p50, spread = past(subject).means.p50(), past(subject).stds.p50()
        assert p50 is not None
        assert spread
        assert extra.batch.advantage is not None
        expected = (float(extra.batch.reward[0]) - p50) / (spread if divided else 1)
        assert float(extra.batch.advantage.max()) == pytest.approx(expected)


def test_outcomes_alone_are_compared_if_asked_to() -> None:
    name = "algorithm.plugins=[tool_reward, self_imitation]"
    whole, outcome = build(*ALONE, name), build(*ALONE, name, f"{OWN}.outcome_only=true")
    for subject in (whole, outcome):
        replays(subject, Moment(0, 10))
    plain = build(*ALONE)
    replays(plain, Moment(0, 10))
    assert past(outcome).means.contents == pytest.approx(past(plain).means.contents)
    assert past(whole).means.contents != pytest.approx(past(plain).means.contents)
    assert {each.reward for each in past(outcome).episodes.entries} <= {0.0, 1.0}


def test_as_good_as_p50_is_replayed_if_asked_to() -> None:
    batch = build_rows(episodes((1, 0, 1, 0))).batch
    for strict, expected in ((True, 0), (False, 2)):
        subject = build(*ALONE, f"{OWN}.strict={str(strict).lower()}")
        past(subject).means.push([1.0] * 9)
        (extra,) = subject.parts.replays[0](scored(batch, subject, Moment(1, 10)), Moment(1, 10), 1)
        assert extra is not None
        assert len(set(extra.batch.traj.tolist())) == expected


def test_an_entropy_bonus_inside_the_replayed_loss() -> None:
    (extra,) = replays(build(*ALONE, f"{OWN}.entropy_coeff=0.25", f"{OWN}.coef=2"), Moment(1, 10))
    assert [(term.name, term.coefficient) for term in extra.terms] == [("surrogate", 2), ("entropy_bonus", -0.5)]


# Schedules in the log


def test_the_schedules_are_logged() -> None:
    subject = learner("algorithm.name=spear", f"{OWN}.warmup=4", "algorithm.settings.tool_reward.decay=4")
    for iteration in range(6):
        metrics = subject.update(played(iteration), Moment(iteration, 6)).metrics
        assert metrics["tool_weight"] == tool_call_weight(iteration, 4)
        assert metrics["sil_weight"] == imitation_weight(iteration, 4)


# Bad input


def bad(what: str) -> Batch:
    batch = played()
    nothing = torch.zeros_like(batch.mask)
    made: dict[str, Callable[[], Batch]] = {
        "all equal": lambda: build_rows(episodes((1,) * 8)).batch,
        "all failed": lambda: build_rows(episodes((0,) * 8)).batch,
        "a group of one": lambda: build_rows(episodes((1, 0, 0, 1, 1))).batch,
        "a row without a policy token": lambda: _without(batch, 3),
        "all masked": lambda: batch.with_(mask=nothing, step_id=torch.full_like(batch.step_id, -1)),
        "all left out": lambda: batch.with_(kept=torch.zeros(len(batch.ids), dtype=torch.bool)),
    }
    return made[what]()


def _without(batch: Batch, row: int) -> Batch:
    mask = batch.mask.clone()
    mask[row] = False
    return batch.with_(mask=mask, step_id=torch.where(mask, batch.step_id, -1))


@pytest.mark.parametrize(
    "what",
    ["all equal", "all failed", "a group of one", "a row without a policy token", "all masked", "all left out"],
)
@pytest.mark.parametrize("more", [[], [f"{OWN}.separate_steps=true"], [f"{OWN}.loss=kl_cov"]], ids=["", "sep", "kl"])
def test_degenerate_batches_are_finite_and_what_is_stored_is_replayed(what: str, more: list[str]) -> None:
    subject = learner(*SPEAR, *more, mini_batches=2)
    subject.update(bad(what), Moment(0, 10))
    subject.update(played(), Moment(1, 10))
    metrics = subject.update(bad(what), Moment(2, 10)).metrics
    assert all(v is None or v == v for v in metrics.values())
    assert metrics["sil_replayed"]
    assert metrics["grad_norm"]
    assert all(bool(p.isfinite().all()) for p in subject.policy.model.parameters())


def test_rewards_that_are_no_numbers_are_told() -> None:
    batch = played()
    broken = batch.with_(reward=torch.full_like(batch.reward, float("nan")))
    with pytest.raises(TrainingError, match="is not finite"):
        learner(*SPEAR).update(broken, Moment(0, 10))


def test_logits_without_end_stop_the_update_with_a_reason() -> None:
    subject = learner(*SPEAR)
    subject.update(played(0), Moment(0, 10))
    entries = past(subject.algorithm).episodes.entries
    with torch.no_grad():
        subject.policy.head.weight[int(entries[0].ids[entries[0].turn >= 0][0])] = float("inf")
    with pytest.raises(TrainingError, match="is not finite"):
        subject.update(played(1), Moment(1, 10))


def test_one_episode_a_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="group_size 1"):
        build(*SPEAR, "rollout.group_size=1")
    with pytest.raises(ConfigError, match="old_logprobs=learner"):
        build(*ALONE, "learner.old_logprobs=rollout")


# State


def states() -> Iterator[dict[str, Any]]:
    yield {}
    yield {"means": {"steps": []}, "stds": {"steps": []}}
    yield {"means": {"steps": []}, "stds": {"steps": []}, "episodes": {}}


@pytest.mark.parametrize("state", list(states()))
def test_what_is_no_saved_state_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not a saved"):
        past(build(*ALONE)).load_state_dict(state)


def test_an_empty_memory_after_a_resume_goes_on() -> None:
    subject = learner(*SPEAR)
    state = json.loads(json.dumps(subject.algorithm.state_dict()))
    subject.algorithm.load_state_dict(state)
    assert subject.update(played(), Moment(4, 10)).metrics["sil_replayed"]


def test_a_resumed_memory_replays_the_same() -> None:
    whole, batch, moment = warm(*SPEAR, mini_batches=2)
    resumed = learner(*SPEAR, "optimiser.lr=3e-3", mini_batches=2)
    resumed.policy.model.load_state_dict(whole.policy.model.state_dict())
    resumed.optimiser.load_state_tensors(whole.optimiser.state_tensors())
    resumed.algorithm.load_state_dict(json.loads(json.dumps(whole.algorithm.state_dict())))
    one, other = whole.update(batch, moment), resumed.update(batch, moment)
    assert one.metrics == other.metrics
    assert fingerprint(whole.policy.model) == fingerprint(resumed.policy.model)


@pytest.mark.parametrize(
    "base", [["algorithm.name=spear"], ["algorithm.name=gspo", "algorithm.plugins=[self_imitation]"]]
)
def test_replayed_tokens_are_clipped_by_their_own_bounds(base: list[str]) -> None:
    """A ratio a span has other bounds than a ratio a token."""
    (extra,) = replays(build(*base, f"{OWN}.warmup=0"), Moment(1, 10))
    found = [gate.bounds for gate in extra.gates if isinstance(gate, ClipCov)]
    assert found == [Bounds(0.2, 0.28, math.inf)]


@pytest.mark.parametrize("base", ["gigpo", "ppo", "aepo", "epo", "gspo"])
def test_it_goes_with_other_algorithms(base: str) -> None:
    plugins = "self_imitation" if base == "gspo" else f"{base}, self_imitation"
    options = [f"algorithm.name={base}", f"algorithm.plugins=[{plugins}]", f"{OWN}.warmup=0"]
    metrics = update(*warm(*options, mini_batches=2))[0].metrics
    assert metrics["sil_replayed"]
    assert metrics["sil_surrogate"]
    assert metrics["sil_clip_fraction"] is not None
    assert metrics["sil_clip_fraction"] < 0.5


def test_shapers_of_single_passes_leave_what_is_replayed_alone() -> None:
    code, old = ["algorithm.name=aepo", "algorithm.settings.aepo.statistics=code"], "algorithm.policy_loss=clip"
    name = "algorithm.plugins=[aepo, self_imitation]"
    own = [f"{OWN}.warmup=0", f"{OWN}.loss=plain", "algorithm.aggregation=seq-mean-token-mean"]
    batch = played()
    for advantage_weight in ("0.2", "5"):
        subject = learner(*code, old, name, *own, f"algorithm.settings.aepo.advantage_weight={advantage_weight}")
        metrics = update(subject, batch)[0].metrics
        expected = update(learner(*code, old, name, *own, "algorithm.settings.aepo.advantage_weight=0"), batch)[0]
        assert metrics["sil_surrogate"] == pytest.approx(expected.metrics["sil_surrogate"], abs=1e-6)
