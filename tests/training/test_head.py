"""What models do to their logits: found by asking them, and the same in engine, learner and cloning."""

import asyncio
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from palaestra.agents.engines.base import Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.cloning import WeightedRow, cloning_loss, pad_rows
from palaestra.training.forward import Flat, PolicyModel, micro_batches
from palaestra.training.head import HeadShape

LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 1}
OPT = {**LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 16}
MODELS: dict[str, tuple[dict[str, Any], HeadShape]] = {
    "Llama": (LLAMA, HeadShape()),
    "Qwen3": ({**LLAMA, "head_dim": 16}, HeadShape()),
    "GPT2": ({**GPT2, "eos_token_id": 2}, HeadShape()),
    "OPT": (OPT, HeadShape()),
    "Gemma2": (
        {**LLAMA, "head_dim": 16, "final_logit_softcapping": 3.0, "sliding_window": 64},
        HeadShape(soft_cap=3.0),
    ),
    "Cohere": ({**LLAMA, "logit_scale": 0.0625}, HeadShape(scale=0.0625)),
    "Granite": ({**LLAMA, "logits_scaling": 8.0}, HeadShape(scale=0.125)),
    "HyperCLOVAX": ({**LLAMA, "logits_scaling": 0.5}, HeadShape(scale=0.5)),
}


def make(name: str, **more: Any) -> Any:
    """A tiny random model with logits of some size."""
    config = getattr(transformers, f"{name}Config")(**MODELS[name][0], **more)
    kind = next(k for k in ("ForCausalLM", "LMHeadModel") if hasattr(transformers, name + k))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, name + kind)(config).eval()
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=0.3)
    return model


def one_row(ids: list[int], prompt: int, temperature: float) -> Batch:
    mask = torch.arange(len(ids))[None] >= prompt
    line, zeros = torch.zeros(1, dtype=torch.int64), torch.zeros(1, len(ids))
    return Batch(
        ids=torch.tensor([ids]),
        length=torch.tensor([len(ids)]),
        mask=mask,
        step_id=torch.where(mask, 0, -1),
        traj=line,
        group=line,
        reward=line.double(),
        rollout_logprob=zeros,
        rollout_entropy=zeros,
        temperature=temperature,
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_shape_is_found(name: str) -> None:
    assert HeadShape.of(make(name)) == MODELS[name][1]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_engine_and_learner_agree(name: str, temperature: float) -> None:
    model, prompt = make(name), [5, 6, 7, 8]

    async def play() -> Any:
        engine = TorchEngine(model)
        completion = await engine.generate(
            Request(prompt=prompt, sampling=SamplingParams(max_tokens=6, seed=3, temperature=temperature))
        )
        await engine.close()
        return completion

    completion = asyncio.run(play())
    batch = one_row(prompt + completion.ids, len(prompt), temperature)
    flat = Flat.of(batch)
    with torch.no_grad():
        logprob, entropy, _ = PolicyModel(model)(batch, flat, next(micro_batches(flat, torch.arange(1), 99)))
    assert logprob.tolist() == pytest.approx(completion.logprobs, abs=1e-4)
    assert entropy.tolist() == pytest.approx(completion.entropies, abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_model_s_own_logits(name: str) -> None:
    model, ids = make(name), [5, 6, 7, 8, 9, 10]
    batch, flat = one_row(ids, 2, 0.7), Flat.of(one_row(ids, 2, 0.7))
    logprob, entropy, _ = PolicyModel(model)(batch, flat, next(micro_batches(flat, torch.arange(1), 99)))
    (logprob.sum() + 0.3 * entropy.square().sum()).backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    logp = (model(torch.tensor([ids])).logits[0, 1:-1] / 0.7).log_softmax(-1)
    taken, expected = logp.gather(1, torch.tensor(ids[2:])[:, None]), -(logp.exp() * logp).sum(-1)
    (taken.sum() + 0.3 * expected.square().sum()).backward()
    for n, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(ours[n], p.grad, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_cloning_has_the_model_s_own_loss(name: str) -> None:
    model, ids = make(name), [5, 6, 7, 8]
    loss = cloning_loss(PolicyModel(model), pad_rows([WeightedRow(ids, [1.0] * 4)]))
    logits = model(torch.tensor([ids])).logits[0, :-1]
    assert float(loss) == pytest.approx(float(nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))), rel=1e-4)


def test_half_precision_is_recognised() -> None:
    assert HeadShape.of(make("Gemma2").bfloat16()) == HeadShape(soft_cap=3.0)
    assert HeadShape.of(make("Granite").bfloat16()) == HeadShape(scale=0.125)


class Shifted(transformers.LlamaForCausalLM):  # type: ignore[misc]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        result = super().forward(*args, **kwargs)
        result.logits = result.logits.clamp(max=20)
        return result


class Shrunk(transformers.LlamaForCausalLM):  # type: ignore[misc]
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 3,))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Shifted, "Shifted changes its logits in a way that training does not know"),
        (Shrunk, "Shrunk does not pass its last hidden states straight to its output head"),
    ],
)
def test_other_heads_are_refused_by_name(kind: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PolicyModel(kind(transformers.LlamaConfig(**LLAMA)))


def test_asking_leaves_no_trace() -> None:
    model = make("GPT2").train()
    state = torch.random.get_rng_state()
    HeadShape.of(model)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.lm_head._forward_hooks
