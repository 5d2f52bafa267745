"""EPO as a plug-in: every mode of corridor and phase reaches the loss, and nothing else does."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shaping import random_batch
from support.updates import assert_same, build, learner, played, update
from torch import Tensor

from palaestra.training.algorithm import Algorithm
from palaestra.training.batch import Batch
from palaestra.training.entropy import phase_weight
from palaestra.training.entropy_history import EntropyRecord
from palaestra.training.entropy_tracker import EntropyTracker
from palaestra.training.seams import BoundTerm, Moment, Tokens

EPO = "algorithm.name=epo"
REFERENCES = ("scalar", "per_turn", "per_turn_compat")
SCHEDULES = ("paper", "constant", "code_piecewise")
PENALTIES = ("hinge", "indicator")


def epo(**options: Any) -> Algorithm:
    return build(EPO, *(f"algorithm.settings.epo.{key}={_text(value)}" for key, value in options.items()))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def remembering(algorithm: Algorithm, *records: EntropyRecord) -> Algorithm:
    tracker = algorithm.parts.trackers["entropy"]
    assert isinstance(tracker, EntropyTracker)
    for record in records:
        tracker.history.append(record)
    return algorithm


def smoothing(algorithm: Algorithm, batch: Batch, moment: Moment = Moment(3, 20)) -> BoundTerm | None:
    return {term.name: term for term in algorithm.bind(moment, batch)}.get("smoothing")


def tokens_of(batch: Batch) -> Tokens:
    """All policy tokens, whose present entropies are somewhat above and below the old ones."""
    assert batch.old_entropy is not None
    where = batch.mask.nonzero(as_tuple=True)
    g = torch.Generator().manual_seed(5)
    entropy = (batch.old_entropy[where].double() * (0.2 + 2 * torch.rand(len(where[0]), generator=g))).requires_grad_()
    zero = torch.zeros_like(entropy)
    return Tokens(zero, entropy, zero, zero, zero, step_id=batch.step_id[where])


RECORDS = (EntropyRecord(0.9, (0.8, 1.1, 0.4)), EntropyRecord(0.5, (0.4, None)))
KNOWN: dict[str, list[float]] = {
    "scalar": [0.7],
    "per_turn": [0.6, 1.1, 0.4],
    "per_turn_compat": [
        0.4,
        0.75,
        0.2,
    ],  # (0.8 + 0) / 2, (1.1 + 0.4) / 2, (0.4 + 0) / 2: the shorter one is moved right
}


@pytest.mark.parametrize(("reference", "schedule", "penalty"), list(product(REFERENCES, SCHEDULES, PENALTIES)))
def test_every_mode_gives_the_values_and_gradients_of_its_formula(reference: str, schedule: Any, penalty: str) -> None:
    batch, moment = random_batch(2, length=6), Moment(3, 20)
    options = {"low_ratio": 0.5, "high_ratio": 1.5, "slope": 0.3, "entropy_coeff": 0.01}
    algorithm = epo(reference=reference, schedule=schedule, penalty=penalty, **options)
    term = smoothing(remembering(algorithm, *RECORDS), batch, moment)
    assert term is not None
    assert term.coefficient == pytest.approx(0.01 * phase_weight(3, 20, 3.0, schedule))
    tokens = tokens_of(batch)
    found = term.value(tokens).value
    expected, slopes = [], []
    for turn, entropy in zip(tokens.step_id.tolist(), tokens.entropy.tolist(), strict=True):
        known = KNOWN[reference]
        at = known[0] if reference == "scalar" else known[turn] if turn < len(known) else None
        low, high = (-math.inf, math.inf) if at is None else (0.5 * at, 1.5 * at)
        outside = not low < entropy < high
        expected.append(0.3 * (outside if penalty == "indicator" else max(0, low - entropy) + max(0, entropy - high)))
        slopes.append(0.3 * ((entropy > high) - (entropy < low)) if penalty == "hinge" else 0.0)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    if penalty == "hinge":
        (gradient,) = torch.autograd.grad(found.sum(), tokens.entropy)
        assert gradient.tolist() == pytest.approx(slopes, abs=1e-12)
        assert len(set(slopes)) == 3
    else:
        assert not found.requires_grad
    assert term.log["h_ref"] == pytest.approx(sum(KNOWN[reference]) / len(KNOWN[reference]))


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_reference_does_not_see_the_running_iteration_unless_asked(reference: str) -> None:
    batch = random_batch(1)
    assert batch.old_entropy is not None
    other = batch.with_(old_entropy=batch.old_entropy * 7)

    def corridor(of: Batch, **options: Any) -> float | None:
        term = smoothing(remembering(epo(reference=reference, **options), *RECORDS), of)
        assert term is not None
        return term.log["h_ref"]

    assert corridor(batch) == corridor(other)
    assert corridor(batch, include_current=True) != corridor(other, include_current=True)
    first = smoothing(epo(reference=reference, include_current=True), batch)
    assert first is not None
    assert smoothing(epo(reference=reference), batch) is None


@settings(max_examples=40, deadline=None)
@given(total=st.integers(1, 400), gamma=st.floats(0.1, 5))
def test_the_phase_weight_falls_strictly_over_a_run_and_beyond(total: int, gamma: float) -> None:
    """In (1, 2], as long as a float can tell it from 1."""
    reach = min(2 * total, math.floor(30 / gamma * max(1, total // 2)))
    weights = [phase_weight(k, total, gamma) for k in range(reach + 1)]
    assert weights[0] == 2.0
    assert all(2 >= a > b > 1 for a, b in pairwise(weights))


def test_the_other_schedules() -> None:
    assert {phase_weight(k, 20, schedule="constant") for k in range(40)} == {1.0}
    code = [phase_weight(k, 20, schedule="code_piecewise") for k in (0, 75, 76, 150, 400)]
    assert code == pytest.approx([1.0, 0.827067, 0.768632, 0.039830, 0.039830], abs=1e-6)


def test_the_planned_iterations_may_be_given() -> None:
    term = smoothing(remembering(epo(iterations=6), *RECORDS), random_batch(0))
    assert term is not None
    assert term.log["beta"] == pytest.approx(1 + math.exp(-3))


def test_without_its_saved_state_a_resumed_run_skips_the_smoothing_and_restarts_the_phase() -> None:
    batch = random_batch(0)
    kept, dropped = remembering(epo(), *RECORDS), epo()
    assert smoothing(kept, batch, Moment(9, 20)) is not None
    assert smoothing(dropped, batch, Moment(9, 20)) is None
    restarted = smoothing(remembering(epo(), RECORDS[0]), batch, Moment(0, 20))
    assert restarted is not None
    assert restarted.log["beta"] == 2.0
    dropped.load_state_dict(kept.state_dict())
    again, before = (smoothing(each, batch, Moment(9, 20)) for each in (dropped, kept))
    assert again is not None
    assert before is not None
    assert again.log == before.log


def third_update(*options: str) -> tuple[dict[str, float | None], dict[str, Tensor]]:
    """Metrics and gradient of the last of three iterations in which the policy hardly moves."""
    subject = learner(EPO, "optimiser.lr=1e-12", *(f"algorithm.settings.epo.{each}" for each in options))
    for number in range(3):
        result, gradient = update(subject, played(number), Moment(number, 10))
    return result.metrics, gradient


NARROW = ("low_ratio=0.99999", "high_ratio=1.00001", "entropy_coeff=0.5", "slope=0.4")


def test_in_the_learner_the_indicator_changes_the_loss_alone() -> None:
    metrics, gradient = third_update(*NARROW, "penalty=indicator")
    without, plain = third_update(*NARROW[:3], "slope=0")
    assert_same(gradient, plain, atol=1e-9)
    assert metrics["smoothing"]
    assert metrics["loss"] != pytest.approx(without["loss"])


@pytest.mark.parametrize("options", [("low_ratio=0", "high_ratio=.inf"), ("slope=0",), ("smoothing=false",)])
def test_in_the_learner_no_corridor_is_the_bonus_alone(options: tuple[str, ...]) -> None:
    _, gradient = third_update("entropy_coeff=0.5", *options)
    subject = learner(
        "algorithm.name=grpo",
        "algorithm.plugins=[epo]",
        "algorithm.settings.epo={entropy_coeff: 0.5, smoothing: false}",
        "optimiser.lr=1e-12",
    )
    for number in range(3):
        _, bonus = update(subject, played(number), Moment(number, 10))
    assert_same(gradient, bonus, atol=0.0)


def test_in_the_learner_the_hinge_has_a_gradient_by_side() -> None:
    """Above the corridor the bonus is weakened by 1 - slope * beta, below it is strengthened by 1 + slope * beta."""
    _, bonus = third_update("entropy_coeff=0.5", "smoothing=false")
    _, base = third_update("entropy_coeff=0")
    options = ("entropy_coeff=0.5", "slope=0.4", "schedule=constant")
    above = third_update(*options, "low_ratio=0", "high_ratio=0.01")
    below = third_update(*options, "low_ratio=90", "high_ratio=100")
    assert above[0]["frac_above"] == below[0]["frac_below"] == 1.0
    for (_, gradient), factor in ((above, 0.6), (below, 1.4)):
        for name, value in gradient.items():
            expected = base[name] + factor * (bonus[name] - base[name])
            torch.testing.assert_close(value, expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        ("reference=per_turn", "include_current=true", "schedule=code_piecewise"),
        ("reference=per_turn_compat", "penalty=indicator", "late_turn_gate=1", "aggregation=token-mean"),
        ("aggregation=dr-grpo-mean", "late_turn_gate=0"),
    ],
)
def test_modes_mix(options: tuple[str, ...]) -> None:
    metrics, gradient = third_update(*NARROW, *options)
    assert all(math.isfinite(value) for value in metrics.values() if value is not None)
    assert metrics["smoothing"]
    assert all(value.isfinite().all() for value in gradient.values())


def test_a_gate_beyond_all_turns_switches_the_penalty_off() -> None:
    metrics, gradient = third_update(*NARROW, "late_turn_gate=25")
    assert metrics["smoothing"] == 0
    assert_same(gradient, third_update(*NARROW[:3], "slope=0")[1], atol=0.0)
