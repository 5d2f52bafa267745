"""80/20: which tokens stay, and what the loss is divided by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gating import assert_changes_the_update, assert_micro_batches_change_nothing, batch_of, column, tokens_of
from support.updates import MOMENT, learner, played, update

from palaestra.training.aggregate import MODES, Mode, aggregate, token_weights
from palaestra.training.plugins.entropy_topk import Forks, Settings, upper

PLUGIN = "algorithm.plugins=[entropy_topk]"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 5, width=32), min_size=1, max_size=40), st.floats(0, 1))
def test_the_threshold_keeps_what_an_interpolated_quantile_keeps(values: list[float], rho: float) -> None:
    """TRL's rule, by numpy; what a quantile's rounding decides is left out."""
    threshold = np.quantile(np.array(values), 1 - rho)
    if any(0 < abs(value - threshold) < 1e-6 for value in values):
        return
    expected = [value >= threshold - 1e-9 for value in values]
    assert (column(values) >= upper(column(values), rho)).tolist() == expected


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 500), st.floats(0, 1))
def test_about_rho_of_different_tokens_stay(size: int, rho: float) -> None:
    values = torch.randperm(size).double()
    kept = int((values >= upper(values, rho)).sum())
    assert max(1, rho * size - 1) <= kept <= rho * size + 1


def test_ties_stay() -> None:
    values = [0.5] * 8 + [0.1, 0.2]
    assert (column(values) >= upper(column(values), 0.2)).tolist() == [True] * 8 + [False] * 2


def test_the_uncertain_fifth_of_a_step_stays() -> None:
    batch = batch_of([4, 6])
    tokens = tokens_of(batch, logprob=[-1.0] * 10, old_entropy=[0.1, 2.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    said = Forks(Settings(), "token-mean")(tokens, batch, MOMENT)
    assert said.weight is not None
    assert said.weight.tolist() == [0, 1] + [0] * 7 + [1]
    assert said.log == {"fork_threshold": 1.0, "fork_fraction": 0.2}


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "sum"])
def test_kept_tokens_alone_may_be_the_denominator(mode: Mode) -> None:
    """As if the others were masked out."""
    batch = batch_of([4, 6, 2])
    entropy = [0.1, 2.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 0.2, 0.3]
    loss = column(range(1, 13))
    tokens = tokens_of(batch, logprob=[-1.0] * 12, old_entropy=entropy)
    said = Forks(Settings(rho=0.25, denominator="kept"), mode, 10)(tokens, batch, MOMENT)
    assert said.weight is not None
    weights = token_weights(batch.mask, mode, step_id=batch.step_id, traj=batch.traj, constant=10)[batch.mask]
    stays = torch.tensor(entropy) >= 0.9
    wide = torch.zeros(batch.shape, dtype=torch.float64)
    wide[batch.mask] = loss
    mask = torch.zeros_like(batch.mask)
    mask[batch.mask] = stays
    expected = aggregate(wide, mask, mode, step_id=batch.step_id, traj=batch.traj, constant=10)
    assert float((said.weight * weights * loss).sum()) == pytest.approx(float(expected), rel=1e-12)


def test_dropped_tokens_have_no_gradient_and_kept_ones_grpo_s() -> None:
    """With everything but one token dropped, the update is that token's alone."""
    batch = played()
    result, gradient = update(learner("algorithm.name=grpo", PLUGIN, "algorithm.settings.entropy_topk.rho=0"), batch)
    old = result.batch.old_entropy
    assert old is not None
    one = batch.mask & (old == old[batch.mask].max())
    assert one.sum() == 1
    assert result.metrics["fork_fraction"] == pytest.approx(1 / int(batch.mask.sum()))
    advantage = result.batch.advantage
    assert advantage is not None
    expected = -float(advantage[one] * token_weights(batch.mask, "seq-mean-token-mean")[one])
    assert result.metrics["surrogate"] == pytest.approx(expected, abs=1e-7)
    assert any(bool(g.any()) for g in gradient.values()) == bool(advantage[one])


def test_micro_batches() -> None:
    for denominator in ("all", "kept"):
        options = (PLUGIN, f"algorithm.settings.entropy_topk={{rho: 0.3, denominator: {denominator}}}")
        assert_micro_batches_change_nothing(*options)
        assert_changes_the_update(*options)


def test_a_step_without_tokens_is_no_error() -> None:
    batch = batch_of([0, 0])
    assert Forks(Settings(), "token-mean")(tokens_of(batch, logprob=[]), batch, MOMENT).weight is None
