"""The parity probe: what it compares, and what it says when they differ."""

import asyncio
import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.config import OptimiserConfig
from palaestra.errors import TrainingError
from palaestra.training.checkpoint import load_weights
from palaestra.training.engine_player import stamp
from palaestra.training.optimiser import Optimiser
from palaestra.training.parity import LENGTHS, TOKENS, ProbedEngine, check_parity, probes


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def test_engine_and_learner_agree() -> None:
    model = tiny()
    parity = asyncio.run(check_parity(TorchEngine(model, slots=4), model, tolerance=1e-4))
    assert 0 <= max(parity) <= 1e-4


def test_an_engine_that_kept_its_weights_stops_the_run() -> None:
    learner = tiny()
    engine = ProbedEngine(TorchEngine(copy.deepcopy(learner), slots=4), learner, tolerance=1e-3)

    class Deaf(TorchEngine):
        async def update_weights(self, weights: object, version: int) -> None:
            self._version = version

    async def go() -> None:
        with torch.no_grad():
            learner.model.norm.weight.mul_(1.1)
        await engine.update_weights(learner.state_dict(), 4)
        assert engine.parity is not None
        engine.engine = Deaf(copy.deepcopy(learner), slots=4)
        with torch.no_grad():
            learner.model.norm.weight.mul_(1.1)
        with pytest.raises(
            TrainingError, match=r"under weights 5: log-probs by 0\.\d+, entropies by 0\.\d+ \(rounding"
        ):
            await engine.update_weights(learner.state_dict(), 5)

    asyncio.run(go())


def test_weights_that_are_no_numbers_are_found() -> None:
    learner = tiny()
    engine = TorchEngine(copy.deepcopy(learner), slots=4)
    with torch.no_grad():
        learner.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="log-probs by inf"):
        asyncio.run(check_parity(engine, learner, tolerance=1e-3))


def test_prompts_are_the_same_every_time_and_fit() -> None:
    assert probes(100, 1000) == probes(100, 1000)
    for context in (8, 20, 1000):
        found = probes(100, context)
        assert [len(each.prompt) for each in found] == [min(length, context - TOKENS) for length in LENGTHS]
        assert all(0 <= token < 100 for each in found for token in each.prompt)


def test_a_stamp_tells_changed_weights() -> None:
    model = tiny()
    before = stamp(model)
    assert stamp(model) == before
    optimiser = Optimiser(model, OptimiserConfig())
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimiser.step(1e-3)
    stepped = stamp(model)
    assert stepped != before
    load_weights(model, {name: value.clone() for name, value in model.named_parameters()})
    assert stamp(model) != stepped
