"""Mastered tokens: which ones they are."""

from __future__ import annotations

import math

import pytest
import torch
from support.gating import assert_changes_the_update, assert_micro_batches_change_nothing, batch_of, tokens_of
from support.updates import MOMENT, build, learner, played, update

from palaestra.training.first import First
from palaestra.training.plugins.mpt_mask import MasteredTokens, Settings, by_trajectory
from palaestra.training.seams import Moment

PLUGIN = "algorithm.plugins=[mpt_mask]"


def test_mastered_tokens_by_hand() -> None:
    """Of a success that is sure, a success that is not, and a failure that is."""
    batch = batch_of([3, 2, 2], reward=torch.tensor([1.0, 1.0, 0.0]))
    p = [0.999, 0.5, 0.99, 0.999, 0.9, 0.999, 0.999]
    tokens = tokens_of(batch, logprob=[math.log(x) for x in p], entropy=[0.01, 0.5, 0.06, 0.1, 0.4, 0.0, 0.0])
    assert by_trajectory(tokens.entropy, tokens.row).tolist() == pytest.approx([0.19] * 3 + [0.25] * 2 + [0] * 2)  # type: ignore[arg-type]
    said = MasteredTokens(Settings(), First())(tokens, batch, MOMENT)
    assert said.weight is not None
    assert said.weight.tolist() == [0, 1, 0, 1, 1, 1, 1]
    assert said.log == {"mastered_fraction": pytest.approx(2 / 7)}
    more = MasteredTokens(Settings(tau=0, sigma=0.3), First())(tokens, batch, MOMENT)
    assert more.weight is not None
    assert more.weight.tolist() == [0] * 5 + [1, 1]


def test_a_trajectory_in_two_rows_has_one_entropy() -> None:
    batch = batch_of([1, 1], reward=torch.ones(2), traj=torch.zeros(2, dtype=torch.int64))
    tokens = tokens_of(batch, logprob=[0.0, 0.0], entropy=[0.1, 0.5])
    for sigma, weight in ((0.2, [1, 1]), (0.31, [0, 0])):
        said = MasteredTokens(Settings(sigma=sigma), First())(tokens, batch, MOMENT)
        assert said.weight is not None
        assert said.weight.tolist() == weight


def test_failures_and_impossible_thresholds_touch_nothing() -> None:
    batch = played()
    for options in ("{tau: 1.01, sigma: 99}", "{tau: 0, sigma: 0}"):
        assert not build("algorithm.name=grpo", PLUGIN, f"algorithm.settings.mpt_mask={options}").parts.gates
    options = "algorithm.settings.mpt_mask={tau: 0, sigma: 99}"
    result = update(learner("algorithm.name=grpo", PLUGIN, options), batch)[0]
    won = batch.succeeded
    assert won.tolist() == (batch.reward > 0).tolist()
    share = float(batch.mask[won].sum() / batch.mask.sum())
    assert result.metrics["mastered_fraction"] == pytest.approx(share)


def test_with_every_success_masked_failures_learn_alone() -> None:
    batch = played()
    options = ("algorithm.name=grpo", "algorithm.aggregation=token-mean")
    masked = update(learner(*options, PLUGIN, "algorithm.settings.mpt_mask={tau: 0, sigma: 99}"), batch)[0]
    advantage = masked.batch.advantage
    assert advantage is not None
    expected = -float(advantage[batch.mask & ~batch.succeeded[:, None]].sum() / batch.mask.sum())
    assert masked.metrics["surrogate"] == pytest.approx(expected, abs=1e-6)


def test_sigma_can_be_relative_to_the_first_iteration() -> None:
    subject = learner("algorithm.name=grpo", PLUGIN, "algorithm.settings.mpt_mask={tau: 0, sigma: 0.5, unit: first}")
    assert subject.update(played(), Moment(0, 10)).metrics["mastered_fraction"] == 0
    value = subject.algorithm.state_dict()["trackers"]["mpt_mask"]["value"]
    assert value == pytest.approx(5.9, abs=0.3)
    resumed = learner("algorithm.name=grpo", PLUGIN, "algorithm.settings.mpt_mask={tau: 0, sigma: 0.5, unit: first}")
    resumed.algorithm.load_state_dict({"name": "grpo", "trackers": {"mpt_mask": {"value": 3 * value}}})
    assert (resumed.update(played(), Moment(1, 10)).metrics["mastered_fraction"] or 0) > 0.3


def test_micro_batches() -> None:
    options = (PLUGIN, "algorithm.settings.mpt_mask={tau: 0.003, sigma: 99}")
    assert_micro_batches_change_nothing(*options)
    assert_changes_the_update(*options)


def test_no_token_is_no_error() -> None:
    batch = batch_of([0])
    assert (
        MasteredTokens(Settings(), First())(tokens_of(batch, logprob=[]), batch, MOMENT).log["mastered_fraction"] == 0
    )
