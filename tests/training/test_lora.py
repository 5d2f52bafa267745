"""Adapters are trained in place of weights; without them the model is the one before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.levers import levers_recipe, register_levers, save_tiny_model, tiny_model
from support.updates import played, recipe

from palaestra.agents.models import load_model
from palaestra.config import LoraConfig
from palaestra.errors import ConfigError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.checkpoint import load_latest
from palaestra.training.learner import Learner
from palaestra.training.lora import add_lora, merged, own_weights, without_lora
from palaestra.training.run import train
from palaestra.training.seams import Moment

pytest.importorskip("peft", reason="peft is not installed: pip install 'palaestra[lora]'")
IDS = torch.arange(1, 12)[None]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


def adapted(seed: int = 0) -> Any:
    model = tiny_model()
    add_lora(model, LoraConfig(rank=2), seed)
    return model


def trained(model: Any, *overrides: str) -> Learner:
    found = recipe("algorithm.name=grpo", "algorithm.kl_coeff=0.1", "optimiser.lr=1e-2", *overrides)
    subject = Learner(model, build_algorithm(found), config=found.learner, optimiser=found.optimiser, reference=model)
    for number in range(2):
        assert subject.update(played(number), Moment(number, 10)).metrics["loss"] is not None
    return subject


def test_only_adapters_move_and_they_merge_into_an_ordinary_model() -> None:
    before, model = logits(tiny_model()), adapted()
    assert torch.equal(logits(model), before), "they begin as nothing"
    frozen = {name: p.clone() for name, p in model.named_parameters() if ".lora_" not in name}
    trained(model)
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    assert not torch.allclose(logits(model), before, atol=1e-3)
    with without_lora(model):
        assert torch.equal(logits(model), before)
    whole = merged(model)
    assert {n for n, _ in whole.named_parameters()} == {n for n, _ in tiny_model().named_parameters()}
    torch.testing.assert_close(logits(whole), logits(model), atol=1e-5, rtol=1e-5)


def test_the_reference_is_the_model_without_them() -> None:
    subject = trained(adapted())
    batch = played(3)
    assert subject.reference is not None
    alone = Learner(tiny_model(), subject.algorithm, reference=tiny_model())
    torch.testing.assert_close(subject.score(batch, subject.reference).logprob, alone.score(batch).logprob)


def test_what_they_begin_with_is_a_function_of_the_seed() -> None:
    one, same, other = (own_weights(adapted(seed)) for seed in (1, 1, 2))
    assert one
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_targets_that_there_are_not_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.lora\.targets"):
        add_lora(tiny_model(), LoraConfig(rank=2, targets=("nothing",)), 0)


def test_a_run_saves_adapters_and_goes_on_with_them(tmp_path: Path) -> None:
    register_levers()
    save_tiny_model(tmp_path / "base")
    short = ["model.lora.rank=2", "checkpoint.every=1", "evaluation.test_episodes=0", "evaluation.every=0"]
    train(levers_recipe(tmp_path, "budget.iterations=1", *short))
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert all(".lora_" in name for name in checkpoint.model)
    train(levers_recipe(tmp_path, "budget.iterations=2", *short), resume=True)
    assert (tmp_path / "run" / "model" / "adapter" / "adapter_model.safetensors").is_file()
    assert type(load_model(tmp_path / "run").model).__name__ == "LlamaForCausalLM"
