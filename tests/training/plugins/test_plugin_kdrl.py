"""KDRL: reward and teacher at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.levers import save_tiny_model, tiny_model
from support.resuming import assert_resumes
from support.updates import MOMENT, assert_same, episodes, learner, played, recipe, update

from palaestra.training.algorithms import build_algorithm
from palaestra.training.learner import Learner
from palaestra.training.plugins.kdrl import COLUMN, Settings, TeacherKL
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment, Tokens

KDRL = ["algorithm.name=grpo", "algorithm.plugins=[kdrl]"]


def subject(*overrides: str, teacher: int = 1) -> Learner:
    found = recipe(*KDRL, "algorithm.settings.kdrl.teacher=x", *overrides)
    algorithm = build_algorithm(found)
    for provider in algorithm.parts.providers:
        provider.models = {"": tiny_model(teacher)}  # type: ignore[attr-defined]
    return Learner(tiny_model(), algorithm, config=found.learner, optimiser=found.optimiser)


@pytest.mark.parametrize(("iteration", "beta"), [(0, 0.5), (2, 0.3), (4, 0.1), (9, 0.1)])
def test_the_weight_falls_to_its_floor(iteration: int, beta: float) -> None:
    settings = Settings(beta=0.5, delta=0.1, floor=0.1)
    bound = TeacherKL(settings, "token-mean").bind(Moment(iteration, 10), played())
    assert bound is not None
    assert bound.coefficient == pytest.approx(beta)
    assert bound.log == {"teacher_beta": pytest.approx(beta)}


def test_a_weight_that_has_fallen_to_0_has_no_term() -> None:
    assert TeacherKL(Settings(beta=0.5, delta=0.5, floor=0), "token-mean").bind(Moment(1, 10), played()) is None


def test_the_gradient_is_that_of_finite_differences() -> None:
    bound = TeacherKL(Settings(), "token-mean").bind(MOMENT, played())
    assert bound is not None
    g = torch.Generator().manual_seed(0)
    logprob, teacher = (-torch.rand(9, generator=g, dtype=torch.float64) for _ in range(2))
    zero, row = torch.zeros(9, dtype=torch.float64), torch.zeros(9, dtype=torch.int64)

    def value(logprob: torch.Tensor) -> torch.Tensor:
        tokens = Tokens(logprob, zero, zero, zero, zero, row, row=row, old_extra={COLUMN: teacher})
        return bound.value(tokens).value

    assert torch.autograd.gradcheck(value, (logprob.requires_grad_(),))
    assert torch.equal(value(teacher), zero)


def test_solved_episodes_can_be_left_to_the_reward() -> None:
    solved = build_rows(episodes((1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1))).batch
    skipping = "algorithm.settings.kdrl.skip_solved=true"
    with_teacher = update(subject(skipping, "learner.mini_batches=2"), solved)
    without = update(learner("algorithm.name=grpo", "algorithm.drop_uniform_groups=false", mini_batches=2), solved)
    assert with_teacher[0].metrics["teacher_k2"] == 0
    assert_same(with_teacher[1], without[1], atol=0.0)
    assert update(subject(), solved)[0].metrics["teacher_k2"] > 0  # type: ignore[operator]
    mixed = update(subject(skipping), played())[0].metrics["teacher_k2"]
    assert 0 < mixed < update(subject(), played())[0].metrics["teacher_k2"]  # type: ignore[operator]


def test_micro_batches_change_nothing() -> None:
    parts, whole = (update(subject(f"learner.micro_batch_tokens={n}"), played())[1] for n in (30, 10**6))
    assert_same(parts, whole)


def test_a_run_resumes(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "teacher", seed=1)
    settings = f"algorithm.settings.kdrl={{teacher: {tmp_path / 'teacher'}, beta: 1, delta: 0.1}}"
    rows = assert_resumes(tmp_path, *KDRL, settings, "algorithm.aggregation=token-mean")
    assert [row["teacher_beta"] for row in rows] == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5])
