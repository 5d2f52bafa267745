"""Tokens per second of the embedded engine over transformers' `model.generate` in lock step, same model, one thread.

Agents' turns are of uneven lengths: most are a short command, some think first. In lock step a batch of prompts waits
for its longest member before the next batch starts; the engine refills a slot at once. Two workloads:

- `single`: prompts that share nothing, one turn each: decoding and admission alone. The ratio is of this one.
- `talks`: conversations of several turns, whose prompts grow; the engine also reuses what it has already read.

Only the tokens that a turn asked for count, not what lock step computes beyond them. `compiled` is the engine with
compiled steps (`engine.compile`), its compilation not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random

import torch
from _harness import conclude, in_turns, rate, speed_up
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from palaestra.agents.engines.base import Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.models import load_model
from palaestra.errors import PalaestraError

BATCH = 64
Turn = tuple[list[int], int]
"""The tokens that a turn adds to its prompt, and how many it generates."""


def the_model() -> tuple[PreTrainedModel, str]:
    """palaestra-tiny, or a random model of its shape."""
    try:
        return load_model("palaestra-tiny").model, "palaestra-tiny"
    except PalaestraError:
        torch.manual_seed(0)
        shape = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 5, "tie_word_embeddings": True}
        config = LlamaConfig(vocab_size=1600, num_attention_heads=4, num_key_value_heads=1, **shape)
        return LlamaForCausalLM(config).eval(), "random"


def conversations(n: int, turns: int, first: tuple[int, int], vocab: int) -> list[list[Turn]]:
    """Random prompts; three of four turns generate 2-6 tokens, the fourth 16-48."""
    rng = random.Random(0)

    def turn(k: int) -> Turn:
        new = rng.randint(*first) if k == 0 else rng.randint(15, 40)
        length = rng.randint(2, 6) if rng.random() < 0.75 else rng.randint(16, 48)
        return [rng.randrange(4, vocab) for _ in range(new)], length

    return [[turn(k) for k in range(turns)] for _ in range(n)]


def with_engine(model: PreTrainedModel, work: list[list[Turn]], *, compiled: bool = False) -> float:
    """All conversations at once through a fresh engine; returns the tokens generated."""
    engine = TorchEngine(model, slots=BATCH, compiled=compiled)

    async def talk(k: int) -> int:
        prompt: list[int] = []
        total = 0
        for number, (new, length) in enumerate(work[k]):
            prompt = prompt + new
            sampling = SamplingParams(max_tokens=length, seed=1000 * k + number)
            completion = await engine.generate(Request(prompt=prompt, sampling=sampling, session=str(k)))
            prompt = prompt + completion.ids
            total += len(completion.ids)
            if number + 1 == len(work[k]):
                await engine.release(str(k))
        return total

    async def all_talks() -> int:
        return sum(await asyncio.gather(*(talk(k) for k in range(len(work)))))

    return asyncio.run(all_talks())


@torch.inference_mode()
def in_lock_step(model: PreTrainedModel, work: list[list[Turn]]) -> float:
    """Batch after batch, turn after turn, each as long as its longest member; returns the tokens asked for."""
    total = 0
    for begin in range(0, len(work), BATCH):
        batch = work[begin : begin + BATCH]
        prompts: list[list[int]] = [[] for _ in batch]
        for number in range(len(batch[0])):
            turns = [talk[number] for talk in batch]
            prompts = [prompt + new for prompt, (new, _) in zip(prompts, turns, strict=True)]
            answers = _generate(model, prompts, max(length for _, length in turns))
            for k, (_, length) in enumerate(turns):
                prompts[k] = prompts[k] + answers[k][:length]
                total += length
    return total


def _generate(model: PreTrainedModel, prompts: list[list[int]], length: int) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    answer = model.generate(
        ids, attention_mask=mask, max_new_tokens=length, min_new_tokens=length, do_sample=True, top_k=0, pad_token_id=0
    )
    generated: list[list[int]] = answer[:, width:].tolist()
    return generated


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    model, name = the_model()
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    vocab = model.config.vocab_size
    figures = {}
    for workload, work in {
        "single": conversations(4 * BATCH, 1, (60, 200), vocab),
        "talks": conversations(BATCH, 8, (60, 120), vocab),
    }.items():
        with_engine(model, work, compiled=True)
        times = in_turns(
            {
                "ours": lambda w=work: with_engine(model, w),
                "compiled": lambda w=work: with_engine(model, w, compiled=True),
                "generate": lambda w=work: in_lock_step(plain, w),
            },
            rounds,
        )
        figures[workload] = {
            "speed_up": speed_up(times["ours"], times["generate"]),
            "speed_up_cpu": speed_up(times["ours"], times["generate"], "cpu"),
            "compiled_over_ours": speed_up(times["compiled"], times["ours"]),
            "ours_tokens_per_second": rate(times["ours"]),
            "ours_tokens_per_cpu_second": rate(times["ours"], "cpu"),
            "generate_tokens_per_second": rate(times["generate"]),
            "generate_tokens_per_cpu_second": rate(times["generate"], "cpu"),
        }
        print(workload, {key: round(value, 2) for key, value in figures[workload].items()}, flush=True)
    return conclude("engine_decode", figures["single"]["speed_up"], 2.0, model=name, batch=BATCH, **figures)


if __name__ == "__main__":
    raise SystemExit(not main())
