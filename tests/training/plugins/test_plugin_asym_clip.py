"""Clip bounds as a control of entropy: a softmax over twenty actions that learns from coins."""

from __future__ import annotations

from functools import cache

import pytest
from support.coins import entropy_after, plain
from support.updates import build

from palaestra.training.policy_loss import PolicyLoss


@cache
def final_entropy(low: float, high: float) -> float:
    """After training with these bounds."""
    start, end = entropy_after(plain(low, high))
    assert start == pytest.approx(2.56, abs=0.01)
    return end


def test_a_narrow_lower_bound_keeps_entropy_and_a_narrow_upper_one_takes_it() -> None:
    ours, even, upper = final_entropy(0.05, 0.2), final_entropy(0.2, 0.2), final_entropy(0.2, 0.05)
    assert ours > even + 0.2 > upper + 0.4


def test_wide_bounds_do_the_opposite() -> None:
    assert final_entropy(0.2, 0.8) > final_entropy(0.2, 0.2) > final_entropy(0.8, 0.2)


def test_the_preset_is_its_bounds() -> None:
    (term,) = build("algorithm.name=asym_clip").parts.terms
    assert isinstance(term, PolicyLoss)
    assert (term.bounds.clip_low, term.bounds.clip_high) == (0.05, 0.2)
    (own,) = build("algorithm.name=asym_clip", "algorithm.clip_high=0.8").parts.terms
    assert isinstance(own, PolicyLoss)
    assert own.bounds.clip_high == 0.8
