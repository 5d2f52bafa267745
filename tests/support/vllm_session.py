"""vLLM in a process of its own, in the interpreter that has it: plays once, and prints what came as JSON.

    python vllm_session.py MODEL FOLDER

The model has tied embeddings and is on disk as safetensors; FOLDER takes what vLLM reads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from palaestra.agents.constraint import TokenTrie
from palaestra.agents.engines.base import Completion, Request, SamplingParams
from palaestra.agents.engines.vllm.checkpoint import write_checkpoint
from palaestra.agents.engines.vllm.engine import VLLMEngine
from palaestra.agents.engines.vllm.local import LocalTransport
from palaestra.agents.engines.vllm.options import VLLMOptions
from palaestra.agents.models import load_model
from palaestra.errors import PalaestraError

STOP = 2
PROMPTS = [[(17 * k + 31 * j) % 9000 + 3 for j in range(4 + 3 * k)] for k in range(8)]


def ask(prompt: list[int], max_tokens: int = 8, **changes: Any) -> Request:
    """A request; `constraint` and sampling parameters by name."""
    constraint = changes.pop("constraint", None)
    sampling = SamplingParams(max_tokens=max_tokens, stop_ids=(STOP,), **changes)
    return Request(prompt=prompt, sampling=sampling, constraint=constraint)


@torch.inference_mode()
def errors(model: Any, request: Request, completion: Completion, start: int = 0) -> list[float]:
    """Largest differences of log-probs and entropies from a forward pass, from token `start` on."""
    ids = torch.tensor([[*request.prompt, *completion.ids]])
    logits = model(ids).logits[0, len(request.prompt) - 1 : -1].double() / (request.sampling.temperature or 1.0)
    for row, allowed in enumerate(completion.allowed or []):
        outside = torch.ones(logits.shape[-1], dtype=torch.bool)
        outside[allowed] = False
        logits[row, outside] = float("-inf")
    logp = logits.log_softmax(-1)
    chosen = logp.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
    entropy = torch.special.entr(logp.exp()).sum(-1)
    found = torch.tensor([completion.logprobs, completion.entropies], dtype=torch.float64)
    return (torch.stack([chosen, entropy]) - found).abs()[:, start:].amax(1).tolist()


def plain(completion: Completion) -> dict[str, Any]:
    """As JSON."""
    return {name: getattr(completion, name) for name in completion.__struct_fields__}


class Session:
    """Everything that one started engine shows."""

    def __init__(self, model: str, folder: Path) -> None:
        self.loaded = load_model(model)
        self.folder, self.model = folder, self.loaded.model
        write_checkpoint(folder / "model", self.loaded)
        write_checkpoint(folder / "exchange", self.loaded)
        options = VLLMOptions(folder=folder / "model", context_length=512, slots=16, cache_gib=0.5, lora_rank=8)
        self.engine = VLLMEngine(LocalTransport(options), folder / "model", exchange=folder / "exchange")
        self.found: dict[str, Any] = {"seconds": {}}

    async def play(self) -> dict[str, Any]:
        """All parts, in turn, with the time that each takes."""
        for part in (
            self.second_runner,
            self.engine.start,
            self.parity,
            self.repeats,
            self.constraints,
            self.cuts,
            self.windows,
            self.guard,
            self.cancelling,
            self.adapters,
            self.new_weights,
            self.in_flight,
            self.stale_prefix,
            self.refused,
            self.engine.close,
        ):
            began = time.perf_counter()
            await part()
            self.found["seconds"][part.__name__] = round(time.perf_counter() - began, 2)
        return self.found

    async def second_runner(self) -> None:
        """The V2 runner's processor as that runner loads, asks and shows it logits, on states made by hand, as the
        runner itself wants Triton: slots, prompts in parts, rows in any order."""
        from types import SimpleNamespace

        from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor
        from vllm.v1.worker.gpu.sample.logits_processor.loader import build_custom_logits_processors

        from palaestra.agents.engines.vllm.ledger import LEDGER

        trie = TokenTrie([[5, 600, STOP], [5, 7, 9, STOP], [800, STOP]])
        states = _slots({1: 4, 3: 3})
        states.all_token_ids.gpu[3, 3] = 5
        name = VLLMOptions(folder=self.folder, device="cuda").arguments()["logits_processors"]
        (processor,) = build_custom_logits_processors(SimpleNamespace(), states, False, name)
        told = {1: ask([1] * 4, temperature=0.5), 3: ask([1] * 3, constraint=trie)}
        seen = [processor.add_request(slot, _params(request, slot)) for slot, request in told.items()]
        seen.append(processor.add_request(2, _params(None, 2)))
        logits = torch.randn(3, 900, generator=torch.Generator().manual_seed(0))
        before = logits.clone()
        processor.apply(logits, _step([1, 2, 3], [2, 9, 4]))  # a part of a prompt, somebody else's, a second token
        processor.apply(before.clone(), _step([3, 1, 2], [3, 4, 10]))
        entropy = torch.special.entr((before[1] / 0.5).softmax(-1)).sum()
        self.found["second runner"] = {
            "is one": isinstance(processor, LogitsProcessor),
            "seen": seen,
            "allowed": logits[2].isfinite().nonzero()[:, 0].tolist(),
            "others untouched": torch.equal(logits[:2], before[:2]),
            "entropy error": abs(LEDGER.take("1", 1)[0][0] - float(entropy)),
            "constrained": len(LEDGER.take("3", 2)),
            "failure": LEDGER.failure,
        }

    async def parity(self) -> None:
        requests = [ask(prompt, 4 + k, seed=k) for k, prompt in enumerate(PROMPTS)]
        requests += [ask(PROMPTS[0], temperature=0.7, seed=3), ask(PROMPTS[1], temperature=0.0)]
        answers = await asyncio.gather(*map(self.engine.generate, requests))
        self.found["parity"] = [errors(self.model, *pair) for pair in zip(requests, answers, strict=True)]
        self.found["answers"] = [plain(answer) for answer in answers]
        self.found["greedy"] = int(self.model(torch.tensor([PROMPTS[1]])).logits[0, -1].argmax()) == answers[-1].ids[0]

    async def repeats(self) -> None:
        request = ask(PROMPTS[5], 8, seed=11)
        alone = await self.engine.generate(request)
        among = await asyncio.gather(*(self.engine.generate(r) for r in [ask(PROMPTS[2]), request, ask(PROMPTS[3])]))
        self.found["repeats"] = [alone.ids, among[1].ids]

    async def constraints(self) -> None:
        trie = TokenTrie([[5, 600, STOP], [5, 7, 9, STOP], [800, STOP]])
        requests = [ask(PROMPTS[k], seed=k, constraint=trie) for k in range(6)]
        requests.append(ask(PROMPTS[1], temperature=0.0, constraint=trie))
        answers = await asyncio.gather(*map(self.engine.generate, requests))
        self.found["constraints"] = [plain(answer) for answer in answers]
        self.found["constraint errors"] = [errors(self.model, *pair) for pair in zip(requests, answers, strict=True)]

    async def cuts(self) -> None:
        requests = [ask(PROMPTS[k], seed=k, top_k=3) for k in range(2)]
        requests += [ask(PROMPTS[k], seed=k, top_p=0.5, temperature=0.8) for k in range(2)]
        answers = await asyncio.gather(*map(self.engine.generate, requests))
        self.found["cut errors"] = [errors(self.model, *pair) for pair in zip(requests, answers, strict=True)]
        self.found["ranks"] = [self._rank(*pair) for pair in zip(requests[:2], answers[:2], strict=True)]

    def _rank(self, request: Request, answer: Completion) -> int:
        with torch.inference_mode():
            logits = self.model(torch.tensor([[*request.prompt, *answer.ids]])).logits[0, len(request.prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(answer.ids)[:, None])
        return int((logits > chosen).sum(-1).max())

    async def windows(self) -> None:
        full = await self.engine.generate(ask([5] * 512))
        close = await self.engine.generate(ask([5] * 510))
        self.found["windows"] = [plain(full), plain(close)]
        self.found["empty"] = await _refusal(self.engine.generate(ask([])))

    async def guard(self) -> None:
        """A request that our processor cannot read: neither it nor the engine fails."""
        params = {"max_tokens": 3, "logprobs": 0, "detokenize": False, "extra_args": {"palaestra": {"completions": 5}}}
        raw = await self.engine._transport.sample([5, 6], params, salt="x", adapter=None)
        after = ask(PROMPTS[0], 3, seed=1)
        self.found["guard"] = [len(raw.ids), errors(self.model, after, await self.engine.generate(after))]

    async def cancelling(self) -> None:
        task = asyncio.create_task(self.engine.generate(ask(PROMPTS[0], 200, seed=1)))
        await asyncio.sleep(0.3)
        task.cancel()
        self.found["cancelled"] = [isinstance(each, asyncio.CancelledError) for each in await _settled(task)]

    async def adapters(self) -> None:
        adapter, merged = _adapter(self.model, self.folder / "adapter")
        request = ask(PROMPTS[4], 6, seed=2)
        before = await self.engine.generate(request)
        await self.engine.update_adapter(adapter, 1)
        after = await self.engine.generate(request)
        await self.engine.update_adapter(adapter, 2)
        again = await self.engine.generate(request)
        self.found["adapter versions"] = [each.weight_version for each in (before, after, again)]
        self.found["adapter errors"] = [errors(self.model, request, before), errors(merged, request, after)]
        self.found["adapter differs"] = max(errors(self.model, request, after))

    async def new_weights(self) -> None:
        _shake(self.model, 1)
        await self.engine.update_weights(self.model.state_dict(), 3)
        request = ask(PROMPTS[6], 8, seed=5)
        answer = await self.engine.generate(request)
        self.found["new weights"] = [answer.weight_version, self.engine.weight_version, answer.versions]
        self.found["new weights errors"] = errors(self.model, request, answer)

    async def in_flight(self) -> None:
        request = Request(prompt=PROMPTS[7], sampling=SamplingParams(max_tokens=96, seed=6))  # outlasts the hand-over
        _shake(self.model, 2)
        written = self.folder / "written"  # beforehand, so that it begins at once
        write_checkpoint(written, self.loaded)
        task = asyncio.create_task(self.engine.generate(request))
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        await self.engine.reload(written, 4)
        self.found["seconds"]["sync"] = round(time.perf_counter() - began, 3)
        answer = await task
        versions = answer.versions or []
        self.found["in flight"] = {"first": answer.weight_version, "versions": versions, "tokens": len(answer.ids)}
        start = versions.index(4) if 4 in versions else 0
        self.found["in flight errors"] = errors(self.model, request, answer, start)

    async def stale_prefix(self) -> None:
        request = ask([*range(100, 228)], 4, seed=6)
        await self.engine.generate(request)
        _shake(self.model, 3)
        await self.engine.update_weights(self.model.state_dict(), 5)
        self.found["stale prefix"] = errors(self.model, request, await self.engine.generate(request))

    async def refused(self) -> None:
        wrong = {**self.model.state_dict(), "model.norm.weight": torch.zeros(3)}
        self.found["refused"] = [
            await _refusal(self.engine.update_weights(wrong, 6)),
            await _refusal(self.engine.update_weights({"x": torch.zeros(1)}, 6)),
            await _refusal(self.engine.generate(ask([5], temperature=0.001))),
        ]


def _shake(model: Any, seed: int) -> None:
    """Change every weight a little, the embedding (and so the tied head) too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05 * parameter.std())


def _adapter(model: Any, folder: Path) -> tuple[Path, Any]:
    """A LoRA adapter of rank 4 on the query projections as peft writes it, and the model with it merged."""
    import copy

    from safetensors.torch import save_file

    folder.mkdir()
    generator, tensors, merged = torch.Generator().manual_seed(0), {}, copy.deepcopy(model)
    for name, module in merged.named_modules():
        if name.endswith("q_proj"):
            a = torch.randn(4, module.in_features, generator=generator) * 0.05
            b = torch.randn(module.out_features, 4, generator=generator) * 0.05
            tensors |= {
                f"base_model.model.{name}.lora_A.weight": a,
                f"base_model.model.{name}.lora_B.weight": b,
            }
            module.weight.data.add_(b @ a * 2.0)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder, merged


def _slots(lengths: dict[int, int]) -> Any:
    """The part of the V2 runner's `RequestState` that processors see: four slots, prompts of these lengths."""
    from types import SimpleNamespace

    import numpy as np

    prompt = SimpleNamespace(np=np.array([lengths.get(slot, 0) for slot in range(4)]))
    tokens = SimpleNamespace(gpu=torch.zeros(4, 8, dtype=torch.int64))
    more = {"device": torch.device("cpu"), "max_num_reqs": 4, "vocab_size": 900, "total_len": None}
    return SimpleNamespace(prompt_len=prompt, prefill_len=prompt, all_token_ids=tokens, **more)


def _step(slots: list[int], lengths: list[int]) -> Any:
    """The V2 runner's description of a step: which slot each row is of, and how many tokens it has."""
    import numpy as np
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

    index, count = torch.tensor(slots), torch.tensor(lengths)
    return LogitsContext(
        expanded_idx_mapping=index,
        idx_mapping=index,
        idx_mapping_np=np.array(slots),
        expanded_local_pos=torch.zeros_like(index),
        input_ids=torch.zeros_like(index),
        pos=count - 1,
        seq_lens_upper_bound_np=np.array(lengths),
    )


def _params(request: Request | None, slot: int) -> Any:
    """vLLM's parameters of a request; `None`: somebody else's."""
    from vllm import SamplingParams as Theirs

    from palaestra.agents.engines.vllm.requests import parameters

    return Theirs() if request is None else Theirs(**parameters(request, str(slot), 8))


async def _settled(task: asyncio.Task[Any]) -> list[Any]:
    return await asyncio.gather(task, return_exceptions=True)


async def _refusal(call: Any) -> str:
    try:
        await call
    except PalaestraError as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(asyncio.run(Session(sys.argv[1], Path(sys.argv[2])).play())))
