"""STEER: how much tokens change the entropy, and what they weigh for it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gating import assert_changes_the_update, assert_micro_batches_change_nothing, batch_of, column, tokens_of
from support.updates import MOMENT, build

from palaestra.errors import ConfigError
from palaestra.training.plugins.steer import Settings, Steer, entropy_change, weights

PLUGIN = "algorithm.plugins=[steer]"
P, OLD, H, A = [0.9, 0.5, 0.05, 0.3], [0.8, 0.5, 0.1, 0.3], [0.4, 1.0, 2.0, 1.2], [1.0, -1.0, 2.0, 0.0]
OMEGA = [abs(a / q * p * (1 - p) * (math.log(p) + h)) for p, q, h, a in zip(P, OLD, H, A, strict=True)]


def logs(values: list[float]) -> list[float]:
    return [math.log(value) for value in values]


def test_omega_by_hand() -> None:
    found = entropy_change(column(logs(P)), column(H), column(logs(OLD)), column(A))
    assert found.tolist() == pytest.approx(OMEGA, rel=1e-12)
    assert found.tolist() == pytest.approx([0.03314, 0.15343, 0.94595, 0.0], abs=1e-5)


def test_weights_by_hand() -> None:
    batch = batch_of([2, 2])
    tokens = tokens_of(batch, logprob=logs(P), entropy=H, old_logprob=logs(OLD), advantage=A)
    linear = [1.2 - (omega - 0.0) * 0.4 / (OMEGA[2] - 0.0) for omega in OMEGA]
    said = Steer(Settings())(tokens, batch, MOMENT)
    assert said.weight is not None
    assert said.weight.tolist() == pytest.approx(linear, rel=1e-12)
    assert said.log["steer_weight"] == pytest.approx(sum(linear) / 4)
    exponential = [math.exp(math.log(0.8) / OMEGA[2] * omega) for omega in OMEGA]
    said = Steer(Settings(map="exponential"))(tokens, batch, MOMENT)
    assert said.weight is not None
    assert said.weight.tolist() == pytest.approx(exponential, rel=1e-12)
    assert min(exponential) == pytest.approx(0.8)


def test_small_omegas_are_hardly_weighed_down_exponentially() -> None:
    found = weights(column([0.0, 0.01]), Settings(map="exponential"))
    assert found.tolist() == pytest.approx([1.0, math.sqrt(0.8)])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=20),
    st.sampled_from(["linear", "exponential"]),
    st.floats(0.01, 1.0),
    st.floats(1.0, 3.0),
)
def test_weights_stay_in_range_and_fall(values: list[float], kind: str, low: float, high: float) -> None:
    omega = column(values)
    found = weights(omega, Settings(map=kind, w_min=low, w_max=high))  # type: ignore[arg-type]
    top = high if kind == "linear" else 1.0
    assert bool(((found >= low) & (found <= top)).all())
    order = omega.argsort()
    assert bool((found[order].diff() <= 1e-12).all())
    if 0 in values and len(set(values)) > 1:
        assert found[omega == 0].tolist() == pytest.approx([top] * values.count(0))


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_omegas_give_the_middle(value: float) -> None:
    assert weights(column([value] * 3), Settings()).tolist() == [1.0] * 3
    assert weights(column([0.0] * 3), Settings(map="exponential", floor=0)).tolist() == [1.0] * 3


def test_certain_impossible_and_unknown_tokens_stay_finite() -> None:
    lp = column([0.0, -math.inf, -1e4, -1.0])
    omega = entropy_change(
        lp, column([0.0, 1.0, 1.0, math.nan]), column([0.0, -math.inf, 0.0, -1.0]), column([1.0] * 4)
    )
    assert bool(omega.isfinite().all())
    assert omega[0] == pytest.approx(0, abs=1e-7)
    assert not len(weights(torch.zeros(0), Settings()))


def test_the_largest_change_of_entropy_is_of_the_token_with_the_largest_omega() -> None:
    """Omega is what moving a token's logit by A / pi_old does to the entropy, up to a sign and one common factor."""
    logits = column([2.0, 0.0, -1.0, 0.5])
    p = logits.softmax(0)
    entropy = float(-(p * p.log()).sum())
    for token in range(4):
        bumped = logits.clone()
        bumped[token] += 1e-6
        q = bumped.softmax(0)
        change = (float(-(q * q.log()).sum()) - entropy) / 1e-6
        s = float(p[token] * (p[token].log() + entropy))
        assert change == pytest.approx(-s, abs=1e-5)
        omega = entropy_change(p[token, None].log(), column([entropy]), column([0.0]), column([1.0]))
        assert float(omega) == pytest.approx(abs(s) * (1 - float(p[token])), abs=1e-9)


def test_micro_batches() -> None:
    for kind in ("linear", "exponential"):
        options = (PLUGIN, f"algorithm.settings.steer={{map: {kind}, w_min: 0.2}}")
        assert_micro_batches_change_nothing(*options)
        assert_changes_the_update(*options)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"steer.w_max: at least w_min \(0.8\), not 0.5"):
        build(PLUGIN, "algorithm.name=grpo", "algorithm.settings.steer.w_max=0.5")
    assert not build(PLUGIN, "algorithm.name=grpo", "algorithm.settings.steer={map: exponential, w_min: 1}").parts.gates
