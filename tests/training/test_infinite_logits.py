"""Tokens that a model rules out (a logit of minus infinity) leave everything finite, whatever is registered."""

from __future__ import annotations

import math

import pytest
import torch
from support.updates import MIXES, learner, played
from torch import nn

from palaestra.errors import TrainingError
from palaestra.training.batch import Allowed, Batch
from palaestra.training.checkpoint import fingerprint
from palaestra.training.learner import Learner
from palaestra.training.plugins.hpt import Switch
from palaestra.training.seams import Moment


def rule_out(subject: Learner, tokens: torch.Tensor) -> Learner:
    """The learner with a model that never says `tokens`."""
    head = subject.policy.head
    bias = torch.zeros(head.out_features)
    bias[tokens] = -math.inf
    head.bias = nn.Parameter(bias, requires_grad=False)
    return subject


def unsaid(batch: Batch) -> torch.Tensor:
    """Every second token that is never sampled."""
    said = batch.ids[batch.mask].unique()
    others = torch.arange(300)
    return others[~torch.isin(others, said)][::2]


def constrained(batch: Batch) -> Batch:
    """Every third token could only be one of four ids, of which the model may rule some out."""
    taken = batch.ids[batch.mask]
    ids, offsets = [], [0]
    for number, token in enumerate(taken.tolist()):
        if number % 3 == 0:
            ids += sorted({token, *range(40, 43)})
        offsets.append(len(ids))
    return batch.with_(allowed=Allowed(torch.tensor(ids), torch.tensor(offsets)))


def assert_finite(subject: Learner, batches: list[Batch]) -> None:
    for number, batch in enumerate(batches):
        metrics = subject.update(batch, Moment(number, 10)).metrics
        odd = {name: value for name, value in metrics.items() if value is not None and not math.isfinite(value)}
        assert not odd
    for name, parameter in subject.policy.model.named_parameters():
        assert name == "lm_head.bias" or parameter.isfinite().all()


EVERY = pytest.mark.parametrize("overrides", MIXES, ids=lambda o: "+".join(each.split(".", 1)[-1] for each in o[:2]))


@EVERY
def test_ruled_out_tokens_leave_everything_finite(overrides: list[str]) -> None:
    batches = [played(number) for number in range(2)]
    never = torch.cat([unsaid(batch) for batch in batches])
    said = torch.cat([batch.ids[batch.mask] for batch in batches])
    subject = learner(*overrides, "algorithm.kl_coeff=0.1", "algorithm.entropy_coeff=0.01", mini_batches=2)
    assert_finite(rule_out(subject, never[~torch.isin(never, said)]), batches)


@EVERY
def test_a_single_token_that_is_possible(overrides: list[str]) -> None:
    """All the rest has minus infinity: entropy 0, probability 1, and no gradient but finite ones."""
    batch = played()
    only = torch.full_like(batch.ids, 7)
    batch = batch.with_(ids=torch.where(batch.mask, only, batch.ids))
    subject = learner(*overrides, mini_batches=2)
    for replay in subject.algorithm.parts.replays:
        if isinstance(replay, Switch):  # demonstrations too
            for node in (node for each in replay.demonstrations.known.values() for node in each.nodes if node.sampled):
                node.ids = [7] * len(node.ids)
    others = torch.arange(subject.policy.head.out_features)
    assert_finite(rule_out(subject, others[others != 7]), [batch])
    assert subject.score(batch).entropy.abs().max() < 1e-6


@EVERY
def test_constraints_and_ruled_out_tokens(overrides: list[str]) -> None:
    batch = constrained(played())
    assert_finite(rule_out(learner(*overrides, mini_batches=2), unsaid(batch)), [batch])


def test_to_have_sampled_what_is_ruled_out_is_an_error() -> None:
    batch = played()
    subject = rule_out(learner("algorithm.name=grpo", mini_batches=2), batch.ids[batch.mask][:1])
    before = fingerprint(subject.policy.model)
    with pytest.raises(TrainingError, match="the label has a logit of minus infinity"):
        subject.update(batch, Moment(0, 10))
    assert fingerprint(subject.policy.model) == before
