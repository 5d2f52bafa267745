"""What the learner does with gates, statistics and replayed batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from support.updates import MOMENT, assert_same, learner, played, update
from torch import Tensor

from palaestra.errors import ConfigError
from palaestra.training.algorithm import GroupAdvantage, joined
from palaestra.training.batch import Batch
from palaestra.training.importance import truncated_importance
from palaestra.training.learner import Learner
from palaestra.training.seams import (
    NOTHING,
    BoundTerm,
    Extra,
    Gated,
    Moment,
    Need,
    Parts,
    Statistic,
    Tokens,
    Tracker,
    Values,
)


@dataclass
class Watcher:
    """A gate that notes what it sees."""

    said: Callable[[Tokens], Gated] = field(default=lambda tokens: Gated())
    seen: list[tuple[Tokens, Moment]] = field(default_factory=list)
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        self.seen.append((tokens, moment))
        return self.said(tokens)


@dataclass(frozen=True)
class Simple:
    """A term whose value is any function of the tokens."""

    value: Callable[[Tokens], Tensor]
    requires: frozenset[Need] = NOTHING
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm:
        return BoundTerm("simple", 1.0, "token-mean", lambda tokens: Values(self.value(tokens)))


@dataclass(frozen=True)
class Again:
    """Replays the iteration's own batch in every step."""

    gates: tuple[Watcher, ...] = ()
    requires: frozenset[Need] = frozenset({"scored"})
    only: int | None = None

    def __call__(self, batch: Batch, moment: Moment, steps: int) -> Sequence[Extra | None]:
        terms = tuple(term for term in [policy_loss(batch)] if term)
        extra = Extra("again", batch, terms, self.gates)
        return [extra if self.only in (None, step) else None for step in range(steps)]


def policy_loss(batch: Batch) -> BoundTerm | None:
    return learner("algorithm.name=grpo").algorithm.parts.terms[0].bind(MOMENT, batch)


def grpo(parts: Parts, *overrides: str, keep: bool = True, **config: Any) -> Learner:
    """GRPO with further parts."""
    subject = learner("algorithm.name=grpo", *overrides, **config)
    base = {"grpo": subject.algorithm.parts} if keep else {}
    subject.algorithm = replace(subject.algorithm, parts=joined({**base, "more": parts}), drop_uniform_groups=False)
    return subject


@pytest.mark.parametrize("size", [30, 10**6])
def test_a_gate_sees_every_token_of_a_step_under_the_present_weights(size: int) -> None:
    gate, batch = Watcher(), played()
    subject = grpo(Parts(gates=(gate,)), "optimiser.lr=0.05", mini_batches=2, micro_batch_tokens=size)
    result, _ = update(subject, batch)
    (first, at), (second, later) = gate.seen
    assert len(first.logprob) + len(second.logprob) == int(batch.mask.sum())
    assert (at.step, later.step, later.iteration) == (0, 1, MOMENT.iteration)
    assert torch.equal(first.logprob, first.old_logprob)
    assert (second.logprob - second.old_logprob).abs().max() > 1e-3
    assert first.row is not None
    assert (first.row.diff() >= 0).all()
    assert result.metrics["clip_fraction"] is not None
    assert not any(c.requires_grad for c in (first.logprob, second.logprob, second.entropy))


def test_gates_multiply() -> None:
    batch = played()
    half = Watcher(lambda tokens: Gated(weight=torch.full_like(tokens.logprob, 0.5), log={"half": 1.0}))
    plain = update(grpo(Parts()), batch)[1]
    result, found = update(grpo(Parts(gates=(half, half))), batch)
    assert_same({name: 4 * gradient for name, gradient in found.items()}, plain)
    assert result.metrics["half"] == 1.0


def test_dropped_tokens_stay_in_the_denominators() -> None:
    batch = played()
    none = Watcher(lambda tokens: Gated(weight=torch.zeros_like(tokens.logprob)))
    _, found = update(grpo(Parts(gates=(none,))), batch)
    assert not any(gradient.any() for gradient in found.values())
    first = Watcher(lambda tokens: Gated(weight=(tokens.row == 0).double()))
    alone = batch.with_(mask=batch.mask & (torch.arange(12) == 0)[:, None])
    _, ours = update(grpo(Parts(gates=(first,)), "algorithm.aggregation=seq-mean-token-mean"), batch)
    advantage = GroupAdvantage()(batch)
    again = learner("algorithm.name=grpo")
    again.algorithm = replace(again.algorithm, advantage=lambda _: advantage)
    _, theirs = update(again, alone)
    assert_same({name: 12 * gradient for name, gradient in ours.items()}, theirs)


def test_terms_read_marks() -> None:
    marks = Watcher(lambda tokens: Gated(marks={"odd": tokens.step_id % 2 == 1}))
    seen: list[Tensor] = []

    def value(tokens: Tokens) -> Tensor:
        seen.append(tokens.marks["odd"] == (tokens.step_id % 2 == 1))
        return tokens.logprob * 0

    update(grpo(Parts(gates=(marks,), terms=(Simple(value),)), micro_batch_tokens=30, mini_batches=2), played())
    assert len(seen) > 4
    assert all(bool(each.all()) for each in seen)


def _entropy(logits: Tensor, taken: Tensor) -> Tensor:
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp.nan_to_num(neginf=0.0)).sum(-1)


def test_statistics_have_values_and_gradients() -> None:
    """Entropy once as a statistic and once as the learner's own."""
    batch, gate = played(), Watcher()
    statistic = Statistic("mine", _entropy, gradient=True)
    ours = grpo(Parts(statistics=(statistic,), terms=(Simple(lambda t: -t.extra["mine"]),), gates=(gate,)), keep=False)
    theirs = grpo(Parts(terms=(Simple(lambda t: -t.entropy),)), keep=False)
    (result, found), (_, expected) = update(ours, batch), update(theirs, batch)
    assert_same(found, expected)
    tokens = gate.seen[0][0]
    torch.testing.assert_close(tokens.extra["mine"], tokens.entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens.old_extra["mine"], tokens.entropy, rtol=1e-5, atol=1e-5)
    assert result.batch.extra["mine"].shape == batch.shape


def test_statistics_know_what_was_allowed() -> None:
    from palaestra.training.batch import Allowed

    batch = played()
    count = int(batch.mask.sum())
    labels = batch.ids[batch.mask]
    pairs = torch.stack((labels, (labels + 1) % 300), 1).flatten()
    free = count // 2  # the first half of the tokens was not constrained
    offsets = torch.cat((torch.zeros(free, dtype=torch.int64), 2 * torch.arange(count - free + 1)))
    batch = batch.with_(allowed=Allowed(pairs[2 * free :], offsets))
    subject = learner("algorithm.name=grpo")
    scores = subject.score(batch, statistics=[Statistic("mine", _entropy)])
    torch.testing.assert_close(scores.extra["mine"], scores.entropy, rtol=1e-5, atol=1e-5)
    assert float(scores.entropy[batch.mask][free:].max()) <= 0.7


def test_a_replayed_batch_adds_its_gradient() -> None:
    batch = played()
    result, found = update(grpo(Parts(replays=(Again(),))), batch)
    plain, once = update(grpo(Parts()), batch)
    assert_same(found, {name: 2 * gradient for name, gradient in once.items()}, atol=1e-5)
    assert result.metrics["again_surrogate"] == pytest.approx(plain.metrics["surrogate"], abs=1e-7)
    assert result.metrics["again_clip_fraction"] == 0
    assert result.metrics["loss"] == pytest.approx(2 * (plain.metrics["loss"] or 0), abs=1e-7)


def test_replayed_batches_have_gates_of_their_own() -> None:
    gate = Watcher(lambda tokens: Gated(weight=torch.zeros_like(tokens.logprob), log={"seen": float(len(tokens.row))}))
    batch = played()
    result, found = update(grpo(Parts(replays=(Again((gate,)),))), batch)
    assert_same(found, update(grpo(Parts()), batch)[1])
    assert result.metrics["again_seen"] == int(batch.mask.sum())
    _, moved = update(grpo(Parts(replays=(Again((gate,), only=1),)), mini_batches=2), batch)
    assert moved
    assert [moment.step for _, moment in gate.seen] == [0, 1]


@pytest.mark.parametrize(
    "setting", ["cap: 1.2", "level: sequence", "level: geometric", "range: [0.9, 1.1]", "normalise: true"]
)
def test_the_mismatch_gate_is_the_reference_function(setting: str) -> None:
    batch = played()
    subject = learner(
        "algorithm.name=grpo", "algorithm.plugins=[mismatch]", f"algorithm.settings.mismatch={{{setting}}}"
    )
    old = subject.score(batch).logprob
    noise = 0.2 * torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))
    batch = batch.with_(rollout_logprob=torch.where(batch.mask, old + noise, 0.0), old_logprob=old)
    key, value = setting.split(": ")
    options: dict[str, Any] = {"range": {"mask_range": (0.9, 1.1)}, "normalise": {"normalise": True}}.get(key, {})
    options |= {"cap": {"cap": 1.2}, "level": {"level": value}}.get(key, {})
    expected = truncated_importance(old, batch.rollout_logprob, batch.mask, **options)
    gate = subject.algorithm.parts.gates[0]
    subject.algorithm = replace(subject.algorithm, parts=replace(subject.algorithm.parts, gates=(spy := Spy(gate),)))
    update(subject, batch)
    torch.testing.assert_close(spy.weight, expected[batch.mask])


@dataclass
class Spy:
    """Passes on what a gate says."""

    gate: Any
    weight: Tensor | None = None
    requires: frozenset[Need] = NOTHING

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        said: Gated = self.gate(tokens, batch, moment)
        self.weight = said.weight
        return said


@dataclass
class Nothing:
    """A tracker without memory."""

    requires: frozenset[Need] = NOTHING

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Forget it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        """There is none."""


def test_two_plug_ins_cannot_fill_what_holds_one() -> None:
    one = Parts(advantage=GroupAdvantage())
    with pytest.raises(ConfigError, match="plugins: a and b each bring their own advantage; keep one of them"):
        joined({"a": one, "x": Parts(), "b": one})
    trackers: dict[str, Tracker] = {"memory": Nothing()}
    with pytest.raises(ConfigError, match="b and another plug-in both call a tracker 'memory'"):
        joined({"a": Parts(trackers=trackers), "b": Parts(trackers=trackers)})


def test_the_true_of_several_plug_ins_is_true() -> None:
    assert joined({"a": Parts(own_credit=True), "b": Parts(own_credit=True), "c": Parts()}).own_credit


def test_terms_of_one_name_all_count() -> None:
    """The base's entropy bonus and EPO's have one name."""
    batch = played()
    bonus = ["algorithm.name=epo", "algorithm.settings.epo.aggregation=token-mean", "algorithm.aggregation=token-mean"]
    both = [*bonus, "algorithm.settings.epo.entropy_coeff=0.1", "algorithm.entropy_coeff=0.2"]
    result, found = update(learner(*both), batch, Moment(0, 10))
    _, expected = update(learner(*bonus, "algorithm.settings.epo.entropy_coeff=0.3"), batch, Moment(0, 10))
    assert_same(found, expected)
    assert result.metrics["entropy_bonus"] == pytest.approx(result.metrics["entropy_bonus_2"], abs=1e-6)


def test_what_is_logged_of_clipping_does_not_depend_on_what_is_forwarded() -> None:
    batch = played()
    clipped = []
    for drop in ("true", "false"):
        settings = ["algorithm.name=grpo", f"algorithm.drop_uniform_groups={drop}", "optimiser.lr=0.05"]
        result, _ = update(learner(*settings, mini_batches=2, epochs=2), batch)
        clipped.append([result.metrics[name] for name in ("clip_fraction", "dual_clip_fraction")])
    assert clipped[0] == pytest.approx(clipped[1], abs=1e-7)
    assert clipped[0][0]


def test_the_released_statistics_of_aepo_see_rows_without_advantage() -> None:
    code = ["algorithm.name=aepo", "algorithm.settings.aepo.statistics=code"]
    assert not learner(*code).algorithm.drop_uniform_groups
    with pytest.raises(ConfigError, match="reads every row"):
        learner(*code, "algorithm.drop_uniform_groups=true")


def test_sums_of_the_same_rewards_are_equal_returns() -> None:
    batch = played()
    reward = torch.tensor([0.1 + 0.2, 0.3] * 6, dtype=torch.float64)
    assert len(reward.unique()) == 2
    assert not GroupAdvantage()(batch.with_(reward=reward)).any()


def test_a_refused_action_does_not_make_a_group_mixed() -> None:
    batch = played()
    assert batch.episodes is not None
    keep = learner("algorithm.name=grpo", "algorithm.plugins=[uniform_groups]").algorithm.parts.filters[0]
    fined = batch.with_(reward=batch.reward - 0.1 * (torch.arange(12) % 3 == 0))
    assert keep(fined, MOMENT).tolist() == keep(batch, MOMENT).tolist() == [True] * 8 + [False] * 4
