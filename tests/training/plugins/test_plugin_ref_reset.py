"""Resets of the reference: when, what they leave, and that they survive a death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.levers import levers_recipe, register_levers, save_tiny_model, tiny_model
from support.resuming import assert_resumes
from support.updates import build, learner, played, recipe

from palaestra.errors import CheckpointError, ConfigError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.checkpoint import blend, fingerprint, load_latest
from palaestra.training.kl import kl_estimate
from palaestra.training.learner import Learner
from palaestra.training.metrics import read_metrics
from palaestra.training.plugins.ref_reset import Resets, Settings, mean_kl
from palaestra.training.run import train
from palaestra.training.seams import Moment

RESET = ["algorithm.name=grpo", "algorithm.plugins=[ref_reset]", "algorithm.kl_coeff=0.1"]


def subject(**settings: Any) -> Learner:
    return at_start(*RESET, *(f"algorithm.settings.ref_reset.{key}={value}" for key, value in settings.items()))


def at_start(*overrides: str) -> Learner:
    """With the policy as it begins for a reference."""
    ours = learner(*overrides)
    assert ours.reference is not None
    ours.reference.model.load_state_dict(ours.policy.model.state_dict())
    return ours


def at(iteration: int) -> Moment:
    return Moment(iteration, 10)


def test_the_kl_is_exactly_0_right_after_a_reset() -> None:
    ours = subject(every=2)
    kls = [ours.update(played(n), at(n)).metrics for n in range(5)]
    assert [row["reference_renewed"] for row in kls] == [0, 1, 0, 1, 0]
    # Attention kernels may round otherwise with a gradient, so in general this holds to 1e-7; here they do not.
    assert [row["kl"] == 0 for row in kls] == [True, False, True, False, True]  # at first, policy and reference are one


def test_never_resetting_is_the_base() -> None:
    ours, base = subject(kl_above=1e9), at_start("algorithm.name=grpo", "algorithm.kl_coeff=0.1")
    for n in range(3):
        rows = [each.update(played(n), at(n)).metrics for each in (ours, base)]
        assert rows[0].pop("reference_renewed") == 0
        assert rows[0] == rows[1]
    assert fingerprint(ours.policy.model) == fingerprint(base.policy.model)


def test_a_reset_copies_the_policy_and_the_optimiser_begins_anew() -> None:
    ours, kept = subject(every=1), subject(every=1, optimiser="false")
    for each in (ours, kept):
        each.update(played(), at(0))
        assert each.reference is not None
        assert fingerprint(each.reference.model) == fingerprint(each.policy.model)
    assert not ours.optimiser.state_tensors()
    assert kept.optimiser.state_tensors()


@given(share=st.floats(0.01, 1))
def test_the_soft_variant_mixes(share: float) -> None:
    policy, reference, before = tiny_model(1), tiny_model(2), dict(tiny_model(2).named_parameters())
    blend(policy, into=reference, share=share)
    for (name, mixed), (_, own) in zip(reference.named_parameters(), policy.named_parameters(), strict=True):
        torch.testing.assert_close(mixed, share * own + (1 - share) * before[name], atol=1e-6, rtol=1e-5)


def test_a_large_kl_resets() -> None:
    batch = played()
    g = torch.Generator().manual_seed(0)
    batch = batch.with_(
        old_logprob=-torch.rand(batch.shape, generator=g), ref_logprob=-torch.rand(batch.shape, generator=g)
    )
    assert batch.old_logprob is not None
    assert batch.ref_logprob is not None
    expected = float(kl_estimate(batch.old_logprob[batch.mask], batch.ref_logprob[batch.mask]).mean())
    assert mean_kl(batch) == pytest.approx(expected)
    assert Resets(Settings(kl_above=expected * 0.9))(batch, at(0)) is not None
    assert Resets(Settings(kl_above=expected * 1.1))(batch, at(0)) is None
    nothing = batch.keeping(torch.zeros(len(batch.ids), dtype=torch.bool))
    assert Resets(Settings(kl_above=1e-9))(nothing, at(0)) is None


def test_stalled_validation_resets_once() -> None:
    resets, batch = Resets(Settings(stalled=2)), played()
    told: list[bool] = []
    for iteration, success in enumerate([0.1, 0.3, 0.3, 0.2, 0.1, 0.1, 0.0]):
        resets.evaluated(iteration, success)
        again = Resets(Settings(stalled=2))
        again.load_state_dict(resets.state_dict())
        assert again == resets
        told.append(resets(batch, at(iteration)) is not None)
    assert told == [False, False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["algorithm.plugins=[ref_reset]", "algorithm.settings.ref_reset.every=3"],
            r"nothing reads: set algorithm.kl_coeff",
        ),
        ([*RESET, "algorithm.settings.ref_reset.stalled=3"], r"set tasks.validation and evaluation.every"),
        ([*RESET, "algorithm.settings.ref_reset.mix=0"], r"ref_reset.mix"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_algorithm(recipe("algorithm.name=grpo", *overrides))


def test_another_reader_of_the_reference_will_do() -> None:
    build("algorithm.name=grpo", "algorithm.plugins=[opd, ref_reset]", "algorithm.settings.ref_reset.every=3")


def test_a_checkpoint_without_a_reference_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no reference model"):
        subject(every=2).load_more_tensors({})


def test_a_run_goes_on_from_a_checkpoint_right_after_a_reset(tmp_path: Path) -> None:
    """The optimiser has no moments then."""
    rows = assert_resumes(tmp_path, *RESET, "algorithm.settings.ref_reset.every=2", after=4)
    assert [abs(row["kl"]) < 1e-7 for row in rows] == [True, False, True, False, True, False]


def test_a_resumed_run_has_the_reference_of_before(tmp_path: Path) -> None:
    settings = "algorithm.settings.ref_reset={every: 3, mix: 0.6}"
    rows = assert_resumes(tmp_path, *RESET, settings, "learner.mini_batches=2")
    assert [row["reference_renewed"] for row in rows] == [0, 0, 1, 0, 0, 1]
    checkpoint = load_latest(tmp_path / "broken" / "run" / "checkpoints")
    assert checkpoint is not None
    reference = checkpoint.more["reference"]
    assert any(not torch.equal(reference[name], checkpoint.model[name]) for name in reference)
    first = dict(tiny_model().named_parameters())
    assert any(not torch.equal(reference[name], first[name]) for name in reference)


def test_a_run_resets_when_validation_stalls(tmp_path: Path) -> None:
    register_levers()
    save_tiny_model(tmp_path / "base")
    overrides = ["algorithm.settings.ref_reset.stalled=1", "evaluation.every=1", "evaluation.test_episodes=0"]
    train(levers_recipe(tmp_path, *RESET, *overrides, "optimiser.lr=1e-6"))
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["reference_renewed"] for row in rows] == [0, 1, 0, 1, 0, 1]
    assert max(abs(rows[2]["kl"]), abs(rows[4]["kl"])) < 1e-7
