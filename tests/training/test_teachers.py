"""Who may teach, and what a teacher says of the policy's tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.levers import levers_recipe, register_levers, save_tiny_model, tiny_model
from support.tokens import tiny
from support.updates import MOMENT, episodes, learner

from palaestra.agents.models import LoadedModel
from palaestra.errors import ConfigError, TrainingError, UnknownNameError
from palaestra.training.batch import Batch
from palaestra.training.rows import build_rows
from palaestra.training.run import check_recipe, train
from palaestra.training.teachers import Teachers, require_same_tokens

OPD = ["algorithm.plugins=[opd]", "algorithm.name=grpo"]


def constrained(temperature: float = 1.0) -> Batch:
    """Two choices a token."""
    trajectories = episodes()
    for number, trajectory in enumerate(trajectories):
        trajectory.kind = ("a", "b", "c")[number // 4]
        for node in trajectory.nodes:
            if node.sampled:
                node.allowed = [sorted({token, (token + 7) % 300}) for token in node.ids]
    return build_rows(trajectories, temperature=temperature).batch


def by_hand(batch: Batch, seed: int) -> torch.Tensor:
    """Row by row, with whole logits."""
    model, found = tiny_model(seed), torch.zeros(batch.shape)
    assert batch.allowed is not None
    for place, (row, column) in enumerate(batch.mask.nonzero().tolist()):
        logits = model(batch.ids[row : row + 1, :column]).logits[0, -1] / batch.temperature
        start, end = batch.allowed.offsets[place : place + 2].tolist()
        among = batch.allowed.ids[start:end]
        found[row, column] = (logits[batch.ids[row, column]] - logits[among].logsumexp(0)).detach()
    return found


def test_a_teacher_is_asked_at_the_same_temperature_over_the_same_choices() -> None:
    batch = constrained(0.7)
    teachers = Teachers("t", {"": "x"}, "key", models={"": tiny_model(1)})
    column = teachers(batch, MOMENT, learner("algorithm.name=grpo")._log_probs)["t"]
    torch.testing.assert_close(column, by_hand(batch, 1), atol=1e-5, rtol=1e-5)
    assert not column.requires_grad


def test_each_kind_has_its_teacher() -> None:
    batch = constrained().keeping(torch.arange(12) != 1)
    teachers = Teachers("t", {"": "x", "b": "y"}, "key", models={"": tiny_model(1), "b": tiny_model(2)})
    column = teachers(batch, MOMENT, learner("algorithm.name=grpo")._log_probs)["t"]
    expected = torch.where((batch.group == 1)[:, None], by_hand(batch, 2), by_hand(batch, 1))
    torch.testing.assert_close(column, torch.where(batch.trained, expected, 0.0), atol=1e-5, rtol=1e-5)


def test_a_kind_without_a_teacher_is_an_error() -> None:
    batch, score = constrained(), learner("algorithm.name=grpo")._log_probs
    with pytest.raises(TrainingError, match=r"settings\.x names no teacher for tasks of kind 'a'"):
        Teachers("t", {"b": "y"}, "settings.x", models={"b": tiny_model(1)})(batch, MOMENT, score)
    with pytest.raises(TrainingError, match="was not loaded"):
        Teachers("t", {"b": "y"}, "settings.x")(batch, MOMENT, score)


def test_another_vocabulary_is_refused() -> None:
    ours, model = LoadedModel(tiny_model(), tiny(), "ours"), tiny_model()
    changed = type("Tokenizer", (), {"get_vocab": lambda self: {**tiny().get_vocab(), "new": 340}})()
    with pytest.raises(ConfigError, match=r"p: x has another vocabulary than ours: 'new' is 340 there and no token"):
        require_same_tokens(ours, LoadedModel(model, changed, "theirs"), "p: x")
    model.resize_token_embeddings(100)
    with pytest.raises(ConfigError, match="gives logits for 100 tokens only"):
        require_same_tokens(ours, LoadedModel(model, tiny(), "theirs"), "p: x")


def test_teachers_are_looked_at_before_anything_is_played(tmp_path: Path) -> None:
    register_levers()
    save_tiny_model(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"algorithm.settings.opd.teacher is empty: name the model that teaches"):
        check_recipe(levers_recipe(tmp_path, *OPD))
    with pytest.raises(UnknownNameError, match="nowhere"):
        check_recipe(levers_recipe(tmp_path, *OPD, "algorithm.settings.opd.teacher=nowhere"))
    with pytest.raises(ConfigError, match=r"palaestra-tiny has another vocabulary than base"):
        train(levers_recipe(tmp_path, *OPD, "algorithm.settings.opd.teacher=palaestra-tiny"))
    assert not (tmp_path / "run").exists()
