"""Entrocraft: the band, the sign that stays, iterations that lose all rows."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gating import assert_changes_the_update, assert_micro_batches_change_nothing
from support.shaping import random_batch
from support.updates import assert_same, build, episodes, learner, played, recipe, update

from palaestra.config import parse_recipe, to_dict, to_yaml
from palaestra.errors import ConfigError
from palaestra.training.algorithms import resolve_algorithm
from palaestra.training.checkpoint import fingerprint
from palaestra.training.first import First
from palaestra.training.plugins.entrocraft import Band, Credit, Settings, WantedSign, band
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment

PLUGIN = "algorithm.plugins=[entrocraft]"
SETTINGS = "algorithm.settings.entrocraft"
ABOVE = f"{SETTINGS}={{start: [0, 0.1], end: [0, 0.1], unit: nats}}"
BELOW = f"{SETTINGS}={{start: [50, 60], end: [50, 60], unit: nats}}"


def test_the_band_by_hand() -> None:
    """A quarter and a half of the way through five iterations."""
    ends = (0.6, 0.7), (0.4, 0.5)
    linear, cosine = (Settings(start=ends[0], end=ends[1], schedule=kind) for kind in ("linear", "cosine"))  # type: ignore[arg-type]
    assert band(linear, Moment(0, 5)) == (0.6, 0.7)
    assert band(linear, Moment(1, 5)) == pytest.approx((0.55, 0.65))
    assert band(linear, Moment(4, 5)) == pytest.approx((0.4, 0.5))
    assert band(linear, Moment(9, 5)) == pytest.approx((0.4, 0.5))
    part = (1 - math.cos(math.pi / 4)) / 2
    assert band(cosine, Moment(1, 5)) == pytest.approx((0.6 - 0.2 * part, 0.7 - 0.2 * part))
    assert band(cosine, Moment(2, 5)) == pytest.approx((0.5, 0.6))
    assert band(cosine, Moment(0, 1)) == (0.6, 0.7)


def test_the_paper_s_band_over_its_middle_is_the_default() -> None:
    assert Settings().start == pytest.approx((0.6 / 0.65, 0.7 / 0.65), abs=0.005)
    assert Settings().end == pytest.approx((0.4 / 0.65, 0.5 / 0.65), abs=0.006)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 0.3))
def test_no_row_of_the_unwanted_sign_stays(seed: int, low: float, width: float) -> None:
    """Another way: a row at a time; rows have one advantage each."""
    batch = random_batch(seed)
    assert batch.old_entropy is not None
    assert batch.advantage is not None
    options = Settings(start=(low, low + width), end=(low, low + width), unit="nats")
    kept = WantedSign(Band(options, First()))(batch, Moment(3, 10)).tolist()
    values = [float(h) for h in batch.old_entropy[batch.mask]]
    entropy = sum(values) / len(values)
    for row, stays in enumerate(kept):
        own = batch.advantage[row][batch.mask[row]]
        a = float(own[0]) if len(own) else 0.0
        if entropy > low + width:
            assert stays == (a >= 0)
        elif entropy < low:
            assert stays == (a <= 0)
        else:
            assert stays


def test_rows_of_a_trajectory_stay_together() -> None:
    batch = random_batch(1).with_(traj=torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 5]))
    options = Settings(start=(0, 0), end=(0, 0), unit="nats")
    kept = WantedSign(Band(options, First()))(batch, Moment(0, 10))
    assert not kept.all()
    for each in range(6):
        assert len(kept[batch.traj == each].unique()) == 1


@pytest.mark.parametrize(("options", "sign"), [(ABOVE, 1), (BELOW, -1)])
def test_the_update_is_that_of_the_rows_that_stay(options: str, sign: int) -> None:
    result, gradient = update(learner("algorithm.name=grpo", PLUGIN, options), played())
    advantage = result.batch.advantage
    assert advantage is not None
    assert bool((sign * advantage >= 0).all())
    assert bool((sign * advantage > 0).any())
    assert result.metrics["entrocraft_sign"] == sign
    before = update(learner("algorithm.name=grpo"), played())[0].batch.advantage
    assert before is not None
    assert torch.equal(advantage, torch.where(sign * before >= 0, before, 0.0))
    kept = sign * before.sum(1) >= 0
    assert result.metrics["kept_fraction"] == pytest.approx(float(kept.double().mean()))
    whole, few = (torch.where(kept[:, None], played().mask, False), result.batch.trained)
    assert torch.equal(whole, few)
    assert any(bool(g.any()) for g in gradient.values())


def test_inside_the_band_it_is_the_base() -> None:
    """By default the first iteration defines the band, and lies within."""
    ours, grpo = (update(learner("algorithm.name=grpo", *o, mini_batches=2), played()) for o in ([PLUGIN], []))
    assert_same(ours[1], grpo[1], atol=0)
    assert ours[0].metrics["entrocraft_sign"] == 0
    assert 0 < (ours[0].metrics["entrocraft_low"] or 0) < (ours[0].metrics["entrocraft_high"] or 0)


def test_an_iteration_that_loses_all_rows_is_skipped() -> None:
    """Groups in which only the odd one failed by rounding cannot be made here, so the advantage is the return."""
    subject = learner("algorithm.name=grpo", "algorithm.normalise=none", PLUGIN, BELOW)
    before = fingerprint(subject.policy.model)
    result = subject.update(build_rows(episodes((1.0,) * 8)).batch, Moment(0, 10))
    assert fingerprint(subject.policy.model) == before
    assert result.metrics["kept_fraction"] == 0
    assert all(math.isfinite(value) for value in result.metrics.values() if value is not None)


def test_the_released_code_s_credit_is_the_one_sided_return() -> None:
    batch = random_batch(2)
    for sign, level in ((1, 0.0), (-1, 9.0)):
        options = Settings(start=(level, level), end=(level, level), unit="nats", credit="score")
        found = Credit(Band(options, First()))(batch, Moment(0, 10)).advantage
        clamp = batch.reward.clamp(min=0) if sign > 0 else batch.reward.clamp(max=0)
        assert torch.equal(found, clamp[:, None].expand(batch.shape))
    whole = learner("algorithm.name=grpo", PLUGIN, ABOVE, f"{SETTINGS}.credit=score")
    metrics = whole.update(played(), Moment(0, 10)).metrics
    assert "kept_fraction" not in metrics
    assert metrics["entrocraft_sign"] == 1


def test_the_unit_comes_back_after_a_resume() -> None:
    subject, resumed = (learner("algorithm.name=grpo", PLUGIN) for _ in range(2))
    low = subject.update(played(), Moment(0, 10)).metrics["entrocraft_low"]
    value = subject.algorithm.state_dict()["trackers"]["entrocraft"]["value"]
    assert low == pytest.approx(0.92 * value)
    resumed.algorithm.load_state_dict(subject.algorithm.state_dict())
    later = [each.update(played(2), Moment(9, 10)).metrics["entrocraft_low"] for each in (subject, resumed)]
    assert later == pytest.approx([0.62 * value] * 2)


def test_micro_batches() -> None:
    for options in (ABOVE, BELOW):
        assert_micro_batches_change_nothing(PLUGIN, options)
        assert_changes_the_update(PLUGIN, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{start: [2, 1]}", r"entrocraft.start: from low to high, not \(2.0, 1.0\)"),
        ("{end: [0.5, 0.1]}", r"entrocraft.end: from low to high, not \(0.5, 0.1\)"),
    ],
)
def test_bands_that_cannot_be_are_refused(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("algorithm.name=grpo", PLUGIN, f"{SETTINGS}={options}")


def test_a_band_reads_back_from_a_saved_recipe() -> None:
    """Or no run with it could be resumed."""
    asked = recipe("algorithm.name=grpo", PLUGIN)
    saved = msgspec.structs.replace(asked, algorithm=resolve_algorithm(asked.algorithm))
    assert to_dict(saved)["algorithm"]["settings"]["entrocraft"]["start"] == [0.92, 1.08]
    assert to_dict(parse_recipe(to_yaml(saved))) == to_dict(saved)
