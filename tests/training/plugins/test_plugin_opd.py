"""On-policy distillation: the advantage, what it needs, and that it distils."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.levers import levers_recipe, register_levers, save_tiny_model, tiny_model
from support.resuming import assert_resumes
from support.updates import MOMENT, assert_same, build, played, recipe, update

from palaestra.errors import ConfigError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.learner import Learner
from palaestra.training.metrics import read_metrics
from palaestra.training.plugins.opd import TEACHER, TeacherAdvantage
from palaestra.training.run import train

OPD = ["algorithm.name=grpo", "algorithm.plugins=[opd]"]


def columns(seed: int) -> Batch:
    batch, g = played(), torch.Generator().manual_seed(seed)
    old, ref, teacher = (-3 * torch.rand(batch.shape, generator=g) for _ in range(3))
    return batch.with_(old_logprob=old, ref_logprob=ref, extra={TEACHER: teacher})


def subject(*overrides: str, teacher: int = 1, reference: int = 2, model: int = 0) -> Learner:
    """With a teacher as if it had been loaded."""
    found = recipe(*OPD, "algorithm.settings.opd.teacher=x", *overrides)
    algorithm = build_algorithm(found)
    for provider in algorithm.parts.providers:
        provider.models = {"": tiny_model(teacher)}  # type: ignore[attr-defined]
    needed = tiny_model(reference) if "ref_logprob" in algorithm.requires else None
    return Learner(tiny_model(model), algorithm, config=found.learner, optimiser=found.optimiser, reference=needed)


@given(seed=st.integers(0, 1000), lam=st.floats(0, 3))
def test_the_advantage_is_the_formula(seed: int, lam: float) -> None:
    batch = columns(seed)
    old, ref, teacher = (c.double() for c in (batch.old_logprob, batch.ref_logprob, batch.extra[TEACHER]))  # type: ignore[union-attr]
    expected = torch.where(batch.mask, -(old - ref - lam * (teacher - ref)), 0.0)
    torch.testing.assert_close(TeacherAdvantage(lam)(batch).double(), expected, atol=1e-6, rtol=1e-6)


def test_lam_1_does_not_know_the_reference() -> None:
    batch = columns(0)
    found = TeacherAdvantage(1.0)(batch)
    assert torch.equal(found, TeacherAdvantage(1.0)(batch.with_(ref_logprob=None)))
    assert "ref_logprob" not in subject("algorithm.settings.opd.lam=1").algorithm.requires
    assert "ref_logprob" in subject().algorithm.requires


def test_lam_0_pulls_to_the_reference_and_needs_no_teacher() -> None:
    batch = columns(1)
    assert batch.ref_logprob is not None
    assert batch.old_logprob is not None
    expected = torch.where(batch.mask, batch.ref_logprob - batch.old_logprob, 0.0)
    torch.testing.assert_close(TeacherAdvantage(0.0)(batch.with_(extra={})), expected)
    assert not subject("algorithm.settings.opd.lam=0").algorithm.parts.providers


@pytest.mark.parametrize("overrides", [["algorithm.settings.opd.lam=1"], []], ids=["lam 1", "lam 1.25"])
def test_a_teacher_that_is_the_student_teaches_nothing(overrides: list[str]) -> None:
    result = subject(*overrides, teacher=0, reference=0).update(played(), MOMENT)
    assert result.batch.advantage is not None
    assert not result.batch.advantage.any()
    assert result.metrics["teacher_kl"] == 0
    assert result.metrics["grad_norm"] == 0


def test_the_gradient_is_that_of_the_reverse_kl() -> None:
    """A score times `teacher - old`, row by row with whole logits."""
    batch = played()
    found = update(subject("algorithm.settings.opd.lam=1", "algorithm.settings.opd.cap=0"), batch)[1]
    model, teacher = tiny_model(), tiny_model(1)
    for row in range(len(batch.ids)):
        ids, mask = batch.ids[row : row + 1], batch.mask[row, 1:]
        taken = [
            m(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0][mask] for m in (model, teacher)
        ]
        (-(taken[1] - taken[0]).detach() * taken[0]).mean().div(len(batch.ids)).backward()
    assert_same(found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def test_importance_weights_are_capped_at_5() -> None:
    batch = played().with_(rollout_logprob=torch.full_like(played().rollout_logprob, -30.0))
    metrics = subject().update(batch, MOMENT).metrics
    assert metrics["mismatch_weight"] == pytest.approx(5.0)
    assert "mismatch_weight" not in subject("algorithm.settings.opd.cap=0").update(batch, MOMENT).metrics
    with pytest.raises(ConfigError, match="opd brings the weights of mismatch"):
        build("algorithm.name=grpo", "algorithm.plugins=[opd, mismatch]")


def test_micro_batches_change_nothing() -> None:
    parts, whole = (update(subject(f"learner.micro_batch_tokens={n}"), played())[1] for n in (30, 10**6))
    assert_same(parts, whole)


def test_every_row_filtered_out_is_no_update() -> None:
    batch = played()
    result = subject("learner.mini_batches=2").update(
        batch.keeping(torch.zeros(len(batch.ids), dtype=torch.bool)), MOMENT
    )
    assert result.metrics["teacher_kl"] is None
    assert result.metrics["grad_norm"] == 0


def test_a_run_distils_with_one_episode_a_task(tmp_path: Path) -> None:
    """What the teacher learned by rewards, the student learns without any."""
    register_levers()
    for name in ("teacher", "student"):
        (tmp_path / name).mkdir()
        save_tiny_model(tmp_path / name / "base")
    less = ["evaluation.test_episodes=0", "evaluation.every=0", "checkpoint.every=100"]
    train(levers_recipe(tmp_path / "teacher", "algorithm.name=grpo", "budget.iterations=25", *less))
    settings = f"algorithm.settings.opd={{teacher: {tmp_path / 'teacher' / 'run'}, lam: 1}}"
    single = ["rollout.group_size=1", "rollout.groups=12", "budget.iterations=25"]
    train(levers_recipe(tmp_path / "student", *OPD, settings, *single, *less))
    rows = list(read_metrics(tmp_path / "student" / "run" / "metrics.jsonl"))
    first, last = (
        {key: sum(row[key] for row in part) / 5 for key in ("success", "teacher_kl")} for part in (rows[:5], rows[-5:])
    )
    assert first["success"] < 0.5 < 0.8 < last["success"]
    assert last["teacher_kl"] < first["teacher_kl"] / 10


def test_a_base_of_its_own_and_resuming(tmp_path: Path) -> None:
    for seed in (1, 2):
        save_tiny_model(tmp_path / str(seed), seed=seed)
    settings = f"algorithm.settings.opd={{teachers: {{levers: {tmp_path / '1'}}}, base: {tmp_path / '2'}}}"
    rows = assert_resumes(tmp_path, *OPD, settings, "learner.mini_batches=2")
    assert all(row["teacher_kl"] is not None for row in rows)
