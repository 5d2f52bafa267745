"""What a GPU makes of the learner and of the embedded engine, beside what its data sheet allows.

Models of random weights in the shapes of 0.5 to 8 billion parameters; `tiny` tries everything on a CPU. Of each shape:

- an update's forward and backward pass: tokens/s, and model FLOPs over the device's peak (6 FLOPs a parameter and
  token, attention on top), with gradient checkpointing where the shape wants it;
- log-prob and entropy with their gradient: seconds and peak memory, ours compiled against the logits at once;
- the embedded engine: tokens/s at 64 requests, over the rate at which the weights can be read.

    python benchmarks/gpu.py --shapes 0.5b 1.5b 8b [--device cuda] [--peak 989 --bandwidth 4.8]
    python benchmarks/gpu.py --shapes tiny --device cpu --rounds 1
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _harness import conclude
from transformers import LlamaConfig, LlamaForCausalLM

from palaestra.agents.engines.base import Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.training.logprob import logprob_entropy

BAR = 0.4
"""Share of the peak that a learner should reach."""


@dataclass(frozen=True)
class Shape:
    """A model, and the tokens that it is measured with."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    tokens: int = 16384
    """Of one micro-batch."""
    length: int = 2048
    """Of one row."""
    recompute: bool = False
    """Gradient checkpointing."""


SHAPES = {
    "tiny": Shape(64, 128, 2, 4, 2, 1000, tied=True, tokens=256, length=64),
    "0.5b": Shape(896, 4864, 24, 14, 2, 151936, tied=True),
    "1.5b": Shape(1536, 8960, 28, 12, 2, 151936, tied=True),
    "3b": Shape(2048, 11008, 36, 16, 2, 151936, tied=True, recompute=True),
    "8b": Shape(4096, 14336, 32, 32, 8, 128256, tied=False, tokens=8192, recompute=True),
}


def model_of(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    config = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=max(4096, shape.length),
    )
    with torch.device(device):
        return LlamaForCausalLM(config).to(dtype).eval()


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median of a few, after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return statistics.median(found[1:])


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Most memory over what is held; known of GPUs only."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def learner(model: Any, shape: Shape, device: torch.device, rounds: int) -> dict[str, Any]:
    """Forward and backward of one micro-batch."""
    rows = shape.tokens // shape.length
    ids = torch.randint(shape.vocabulary, (rows, shape.length), device=device)
    if shape.recompute:
        model.gradient_checkpointing_enable()
        model.train()

    def work() -> None:
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        logprob, entropy = logprob_entropy(hidden, model.get_output_embeddings().weight, ids[:, 1:].flatten())
        (logprob.mean() + 0.01 * entropy.mean()).backward()
        model.zero_grad(set_to_none=True)

    took, memory = seconds(work, device, rounds), peak_bytes(work, device)
    model.eval()
    parameters = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name or shape.tied)
    attention = 6 * shape.layers * shape.width * shape.length  # causal: half of 12
    flops = (6 * parameters + attention) * shape.tokens
    return {"tokens_per_second": shape.tokens / took, "flops_per_second": flops / took, "peak_bytes": memory}


def head(model: Any, shape: Shape, device: torch.device, rounds: int) -> dict[str, Any]:
    """Log-prob and entropy with gradient, ours and with all logits."""
    weight = model.get_output_embeddings().weight
    labels = torch.randint(shape.vocabulary, (min(4096, shape.tokens),), device=device)
    hidden = torch.randn(len(labels), shape.width, device=device, dtype=weight.dtype, requires_grad=True)

    def ours() -> None:
        logprob, entropy = logprob_entropy(hidden, weight, labels)
        (logprob.mean() + entropy.mean()).backward()
        weight.grad = hidden.grad = None

    def whole() -> None:
        logp = (hidden @ weight.T).float().log_softmax(-1)
        logprob, entropy = logp.gather(1, labels[:, None]), -(logp.exp() * logp).sum(-1)
        (logprob.mean() + entropy.mean()).backward()
        weight.grad = hidden.grad = None

    return {
        name: {"seconds": seconds(work, device, rounds), "peak_bytes": peak_bytes(work, device)}
        for name, work in (("ours", ours), ("all_logits", whole))
    }


def engine(model: Any, shape: Shape, rounds: int, requests: int = 64, tokens: int = 128) -> dict[str, Any]:
    """Decoded tokens/s."""
    count = tokens if shape.length > tokens else 16

    async def play() -> int:
        played = TorchEngine(model, slots=requests)
        prompt = list(range(1, 33))
        asked = [
            Request(prompt=[*prompt, k + 1], session=str(k), sampling=SamplingParams(max_tokens=count, seed=k))
            for k in range(requests)
        ]
        done = await asyncio.gather(*map(played.generate, asked))
        await played.close()
        return sum(len(each.ids) for each in done)

    rates = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        made = asyncio.run(play())
        rates.append(made / (time.perf_counter() - begun))
    read = sum(p.numel() * p.element_size() for p in model.parameters())
    return {"tokens_per_second": statistics.median(rates[1:]), "requests": requests, "bytes_a_step": read}


def measured(name: str, device: torch.device, rounds: int, peak: float, bandwidth: float) -> dict[str, Any]:
    shape = SHAPES[name]
    model = model_of(shape, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    found = {"head": head(model, shape, device, rounds), "engine": engine(model, shape, rounds)}
    found["learner"] = learner(model, shape, device, rounds)
    found["learner"]["mfu"] = found["learner"]["flops_per_second"] / (peak * 1e12)
    limit = bandwidth * 1e12 / found["engine"]["bytes_a_step"] * found["engine"]["requests"]
    found["engine"]["share_of_roofline"] = found["engine"]["tokens_per_second"] / limit
    print(name, found, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes", nargs="+", choices=list(SHAPES), default=None, help="default: 0.5b on a GPU, or tiny"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peak", type=float, default=989.0, help="TFLOP/s of the device in bfloat16 (default: an H200's)"
    )
    parser.add_argument("--bandwidth", type=float, default=4.8, help="TB/s of its memory")
    args = parser.parse_args()
    device = torch.device(args.device)
    shapes = args.shapes or (["0.5b"] if device.type == "cuda" else ["tiny"])
    found = {name: measured(name, device, args.rounds, args.peak, args.bandwidth) for name in shapes}
    where = torch.cuda.get_device_name() if device.type == "cuda" else "cpu: the figures mean nothing but that it runs"
    passed = conclude("gpu", min(each["learner"]["mfu"] for each in found.values()), BAR, device=where, **found)
    return 0 if passed or device.type != "cuda" else 1


if __name__ == "__main__":
    raise SystemExit(main())
