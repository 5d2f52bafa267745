"""EPO's terms, corridor, schedules and history, option by option."""

import json
import math
from typing import Any

import msgspec
import pytest
import torch
from support.epo_terms import EntropyTerms, epo_terms
from torch import Tensor

from palaestra.errors import CheckpointError
from palaestra.training.aggregate import token_weights
from palaestra.training.entropy import Corridor, EntropyOptions, corridor_penalty, phase_weight
from palaestra.training.entropy_history import EntropyHistory, EntropyRecord

F64 = torch.float64
ENTROPY = torch.tensor([[0.2, 1.0, 9.9, 3.0], [0.5, 9.9, 2.0, 2.0]], dtype=F64)
MASK = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]])
STEP = torch.tensor([[0, 0, -1, 1], [0, -1, 2, 2]])
WEIGHTS = token_weights(MASK, "traj-turn-token", step_id=STEP)


def terms(reference: Any, entropy: Tensor = ENTROPY, beta: float = 1.5, **options: Any) -> EntropyTerms:
    chosen = EntropyOptions(**{"entropy_coeff": 0.1, "low_ratio": 0.5, "high_ratio": 1.5, **options})
    known = None if reference is None else torch.tensor(reference, dtype=F64)
    return epo_terms(entropy, MASK, STEP, WEIGHTS, reference=known, beta=beta, options=chosen)


def gradient(of: str, reference: Any, **options: Any) -> Tensor:
    entropy = ENTROPY.clone().requires_grad_()
    value = getattr(terms(reference, entropy, **options), of)
    return torch.autograd.grad(value, entropy)[0]


def test_defaults_are_the_papers_table() -> None:
    options = EntropyOptions()
    assert (options.entropy_coeff, options.low_ratio, options.high_ratio, options.slope) == (0.001, 0.0, 2.0, 0.1)
    assert (options.decay, options.penalty, options.reference, options.schedule) == (3.0, "hinge", "scalar", "paper")
    assert (options.aggregation, options.include_current, options.late_turn_gate) == ("traj-turn-token", False, None)
    assert msgspec.convert(msgspec.to_builtins(options), EntropyOptions) == options


def test_counts_and_values_by_hand() -> None:
    result = terms(1.0)
    assert (result.below, result.above, result.tokens) == (1, 3, 6)
    assert float(result.bonus) == pytest.approx(0.5 * (0.5 * (0.6 + 3.0) + 0.5 * (0.5 + 2.0)))
    assert float(result.smoothing) == pytest.approx(0.1 * 0.5 * (0.5 * (0.15 + 1.5) + 0.5 * (0 + 0.5)))
    assert float(result.loss) == pytest.approx(-0.1 * (float(result.bonus) - 1.5 * float(result.smoothing)))


def test_gradients_by_finite_differences() -> None:
    entropy = ENTROPY.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda h: terms(0.9, h).loss, (entropy,))
    assert torch.autograd.gradcheck(lambda h: terms([0.9, 1.5], h).loss, (entropy,))
    assert torch.autograd.gradcheck(lambda h: terms(0.9, h, aggregation="token-mean").smoothing, (entropy,))


def test_indicator_changes_the_value_only() -> None:
    assert not terms(1.0, ENTROPY.clone().requires_grad_(), penalty="indicator").smoothing.requires_grad
    assert torch.equal(gradient("loss", 1.0, penalty="indicator"), gradient("loss", 1.0, slope=0.0))
    assert terms(1.0, penalty="indicator").loss != terms(1.0, slope=0.0).loss


def test_a_token_on_a_bound() -> None:
    entropy = torch.tensor([0.5, 1.0, 1.5], dtype=F64, requires_grad=True)
    hinge = corridor_penalty(entropy, 0.5, 1.5)
    assert hinge.eq(0).all()
    assert torch.autograd.grad(hinge.sum(), entropy)[0].eq(0).all()
    assert corridor_penalty(entropy, 0.5, 1.5, "indicator").tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="unknown penalty"):
        corridor_penalty(entropy, 0.5, 1.5, "square")


def test_late_turn_gate_is_per_turn() -> None:
    gated = gradient("smoothing", 1.0, late_turn_gate=2)
    assert gated[0].eq(0).all()
    torch.testing.assert_close(gated[1], gradient("smoothing", 1.0)[1] * (STEP[1] >= 2))
    assert terms(1.0, late_turn_gate=3).smoothing == 0


def test_per_turn_corridor_ignores_turns_without_a_reference() -> None:
    """Turn 1 is unknown (NaN), turn 2 lies beyond the reference."""
    result = terms([1.0, math.nan])
    assert (result.below, result.above) == (1, 0)
    assert torch.equal(gradient("smoothing", [1.0, math.nan])[:, 2:], torch.zeros(2, 2, dtype=F64))
    low, high = Corridor.around(torch.tensor([1.0, math.nan]), 0.5, math.inf).on_tokens(STEP)
    assert low[0].tolist() == [0.5, 0.5, 0.0, -math.inf]
    assert high[1].tolist() == [math.inf, 0.0, math.inf, math.inf]


def test_smoothing_off_or_without_a_reference() -> None:
    for result in (terms(None), terms(1.0, smoothing=False)):
        assert result.smoothing == 0
        assert result.loss == -0.1 * result.bonus
        assert (result.below, result.above) == (0, 0)


@pytest.mark.parametrize("garbage", [1e30, math.inf, math.nan])
def test_garbage_outside_the_mask(garbage: float) -> None:
    dirty = torch.where(MASK.bool(), ENTROPY, garbage).requires_grad_()
    result = terms([1.0, 0.5], dirty)
    assert result.loss == terms([1.0, 0.5]).loss
    found = torch.autograd.grad(result.loss, dirty)[0]
    assert torch.equal(found, gradient("loss", [1.0, 0.5]))
    assert found[MASK == 0].eq(0).all()


def test_all_masked() -> None:
    entropy = torch.full((1, 2), 2.0, requires_grad=True)
    nothing, step = torch.zeros(1, 2), torch.full((1, 2), -1)
    weights = token_weights(nothing, "traj-turn-token", step_id=step)
    reference = torch.tensor(1.0, dtype=F64)
    result = epo_terms(entropy, nothing, step, weights, reference=reference, beta=2.0, options=EntropyOptions())
    assert result.loss == result.tokens == 0
    assert torch.autograd.grad(result.loss, entropy)[0].eq(0).all()


def test_float32_entropy_gets_a_float32_gradient() -> None:
    entropy = ENTROPY.float().requires_grad_()
    result = terms(1.0, entropy)
    assert result.loss.dtype == F64
    assert torch.autograd.grad(result.loss, entropy)[0].dtype == torch.float32


def test_phase_weight_ends() -> None:
    assert phase_weight(0, 1) == 2.0
    assert phase_weight(5, 100, schedule="constant") == 1.0
    assert phase_weight(10**6, 10) == 1.0
    assert phase_weight(10**6, 10, schedule="code_piecewise") == phase_weight(150, 10, schedule="code_piecewise")
    with pytest.raises(ValueError, match="unknown schedule"):
        phase_weight(0, 10, schedule="cosine")


def test_record_of_a_batch() -> None:
    record = EntropyRecord.measure(ENTROPY, MASK, STEP)
    assert record.mean == pytest.approx(8.7 / 6)
    assert record.by_turn == pytest.approx((0.55, 3.0, 2.0))
    joined = EntropyRecord.measure(ENTROPY, MASK, STEP, torch.tensor([4, 4]))
    assert joined.by_turn == pytest.approx((1.7 / 3, 3.0, 2.0))
    sparse = EntropyRecord.measure(ENTROPY[1:], MASK[1:], STEP[1:])
    assert sparse.by_turn == (0.5, None, 2.0)
    assert EntropyRecord.measure(ENTROPY, MASK * 0, STEP) == EntropyRecord(None, ())


def test_reference_kinds() -> None:
    history = EntropyHistory([EntropyRecord(1.0, (1.0, None, 3.0)), EntropyRecord(2.0, (2.0,))])
    aligned = history.reference("per_turn")
    assert aligned is not None
    assert aligned[[0, 2]].tolist() == [1.5, 3.0]
    assert aligned[1].isnan()
    padded = history.reference("per_turn_compat")
    assert padded is not None
    assert padded.tolist() == [0.5, 0.0, 2.5]
    with pytest.raises(ValueError, match="unknown reference"):
        history.reference("median")


def test_the_current_iteration_counts_only_if_asked() -> None:
    history, current = EntropyHistory([EntropyRecord(1.0, (1.0,))]), EntropyRecord(2.0, (2.0, 4.0))
    assert history.reference() == 1.0
    assert history.reference(current=current) == 1.5
    with_turns = history.reference("per_turn", current=current)
    assert with_turns is not None
    assert with_turns.tolist() == [1.5, 4.0]
    assert len(history.records) == 1


@pytest.mark.parametrize("kind", ["scalar", "per_turn", "per_turn_compat"])
def test_nothing_known_yet(kind: Any) -> None:
    assert EntropyHistory().reference(kind) is None
    assert EntropyHistory([EntropyRecord(None, ())]).reference(kind) is None


def test_history_survives_json_bit_for_bit() -> None:
    history = EntropyHistory()
    for i in range(3):
        history.append(EntropyRecord(1 / (3 + i), (0.1 * i, None, math.pi)))
    history.append(EntropyRecord(None, ()))
    restored = EntropyHistory()
    restored.load_state_dict(json.loads(json.dumps(history.state_dict())))
    assert restored.records == history.records
    assert restored.reference() == history.reference()


@pytest.mark.parametrize("state", [{}, {"mean": [1.0], "by_turn": []}, {"mean": [1.0], "by_turn": [None]}])
def test_a_state_of_something_else_is_refused(state: dict[str, Any]) -> None:
    history = EntropyHistory([EntropyRecord(1.0, (1.0,))])
    with pytest.raises(CheckpointError, match="entropy history"):
        history.load_state_dict(state)
    assert len(history.records) == 1
