"""The adaptive entropy coefficient: its law, when it is applied, its gradient, its memory."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gating import assert_changes_the_update, assert_micro_batches_change_nothing, batch_of
from support.updates import MOMENT, assert_same, build, learner, played, update

from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.plugins.adaptive_entropy import AdaptiveBonus, Coefficient, Settings
from palaestra.training.seams import Moment

PLUGIN = "algorithm.plugins=[adaptive_entropy]"
SETTINGS = "algorithm.settings.adaptive_entropy"


def at(entropy: float) -> Batch:
    """An iteration of that entropy, with other numbers where nothing was sampled."""
    batch = batch_of([3])
    return batch.with_(old_entropy=torch.where(batch.mask, torch.tensor(entropy), 1e6))


def applied(controller: Coefficient, entropy: float) -> float:
    """What an iteration of that entropy applies; the controller moves after it."""
    batch = at(entropy)
    term = AdaptiveBonus(controller, "token-mean").bind(MOMENT, batch)
    controller.observe(batch, MOMENT)
    alpha = term.log["adaptive_entropy_coeff"]
    assert alpha is not None
    return alpha


def test_the_law_by_hand() -> None:
    controller = Coefficient(Settings(target=0.5, unit="nats", step=0.1, start=0.1, highest=0.35), 0.1)
    entropies = [0.4, 0.3, 0.5, 0.2, 0.6, 0.7, 0.4, 0.9, 0.9, 0.9, 0.9]
    found = [applied(controller, entropy) for entropy in entropies]
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.35, 0, 0, 0.15, 0, 0, 0, 0])
    assert controller.value == 0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 3, width=32), max_size=30), st.floats(0, 0.2), st.floats(0, 1))
def test_the_coefficient_stays_in_its_range(entropies: list[float], low: float, high: float) -> None:
    controller = Coefficient(Settings(target=1, unit="nats", step=0.07, lowest=min(low, high), highest=high), high)
    for entropy in entropies:
        alpha = applied(controller, entropy)
        assert min(low, high) <= controller.value <= high
        assert (alpha == 0) or entropy <= 1


def test_constant_entropy_above_the_target_applies_nothing_and_ends_at_the_lowest() -> None:
    controller = Coefficient(Settings(target=0.2, unit="nats", start=0.02, lowest=0.003), 0.02)
    assert [applied(controller, 0.4) for _ in range(10)] == [0.0] * 10
    assert controller.value == 0.003


def test_the_target_is_relative_to_the_first_iteration() -> None:
    controller = Coefficient(Settings(target=0.8, start=0.1), 0.1)
    assert [applied(controller, entropy) for entropy in (2.0, 1.7, 1.5)] == pytest.approx([0, 0, 0.09])
    resumed = Coefficient(Settings(target=0.8), 0.0)
    resumed.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    assert resumed.value == pytest.approx(0.095)
    assert applied(resumed, 1.65) == 0


def test_an_iteration_without_tokens_moves_nothing() -> None:
    controller = Coefficient(Settings(start=0.1), 0.1)
    empty = batch_of([0]).with_(old_entropy=torch.zeros(1, 1))
    assert not controller.low(empty)
    controller.observe(empty, MOMENT)
    assert controller.state_dict() == {"value": 0.1, "first": None}


def test_the_bonus_is_that_of_a_fixed_coefficient_while_it_is_applied() -> None:
    """A fixed bonus, which has its finite differences elsewhere, is the reference."""
    options = f"{SETTINGS}={{start: 0.03, target: 100, unit: nats, aggregation: recipe}}"
    ours = update(learner("algorithm.name=grpo", PLUGIN, options), played())
    fixed = update(learner("algorithm.name=grpo", "algorithm.entropy_coeff=0.03"), played())
    assert_same(ours[1], fixed[1])
    bonus = fixed[0].metrics["entropy_bonus"]
    assert bonus is not None
    assert ours[0].metrics["adaptive_entropy"] == pytest.approx(0.03 * bonus, rel=1e-6)
    assert ours[0].metrics["adaptive_entropy_coeff"] == 0.03


def test_there_is_no_gradient_above_the_target() -> None:
    ours = update(learner("algorithm.name=grpo", PLUGIN, f"{SETTINGS}={{start: 1, target: 0.1}}"), played())
    grpo = update(learner("algorithm.name=grpo", "algorithm.drop_uniform_groups=false"), played())
    assert_same(ours[1], grpo[1], atol=1e-9)
    assert ours[0].metrics["adaptive_entropy_coeff"] == ours[0].metrics["adaptive_entropy"] == 0


def test_the_update_raises_entropy() -> None:
    subject = learner("algorithm.name=grpo", PLUGIN, f"{SETTINGS}={{start: 1, target: 2}}", "optimiser.lr=1e-3")
    batch = played()
    first = subject.update(batch, Moment(0, 10)).batch.old_entropy
    second = subject.update(batch, Moment(1, 10)).batch.old_entropy
    assert first is not None
    assert second is not None
    assert second[batch.mask].mean() > first[batch.mask].mean()
    assert subject.algorithm.state_dict()["trackers"]["adaptive_entropy"]["value"] == 1


def test_micro_batches() -> None:
    options = (PLUGIN, f"{SETTINGS}={{start: 0.1}}")
    assert_micro_batches_change_nothing(*options)
    assert_changes_the_update(*options)


def test_a_start_outside_the_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adaptive_entropy.start: between lowest and highest \(0.0 to 1.0\), not 2"):
        build("algorithm.name=grpo", PLUGIN, f"{SETTINGS}.start=2")
