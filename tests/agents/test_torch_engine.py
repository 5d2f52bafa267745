import asyncio
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from palaestra.agents.constraint import TokenTrie
from palaestra.agents.engines.base import Completion, Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.errors import CheckpointError, EngineError

VOCAB, STOP = 80, 2


def tiny_llama(seed: int = 0, kv_heads: int = 1, window: int = 256) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=window,
        initializer_range=0.15,  # sharp enough for a stale cache to be seen
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def a_gpt2() -> PreTrainedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3, bos_token_id=1
    )
    return GPT2LMHeadModel(config).eval()


def random_trie(r: random.Random) -> TokenTrie:
    return TokenTrie([[r.randrange(3, 9), r.randrange(3, 20), r.randrange(3, VOCAB), STOP] for _ in range(12)])


def ask(prompt: Sequence[int], seed: int = 0, **fields: Any) -> Request:
    sampling = {"max_tokens": 6, "stop_ids": (STOP,), "seed": seed}
    sampling |= {k: fields.pop(k) for k in ("max_tokens", "temperature", "stop_ids") if k in fields}
    return Request(prompt=list(prompt), sampling=SamplingParams(**sampling), **fields)


def random_prompt(r: random.Random, low: int = 1, high: int = 60) -> list[int]:
    return [r.randrange(3, VOCAB) for _ in range(r.randint(low, high))]


@torch.inference_mode()
def plain(model: PreTrainedModel, request: Request, completion: Completion) -> tuple[list[float], list[float]]:
    """Log-probs and entropies by one full forward pass."""
    ids = torch.tensor([[*request.prompt, *completion.ids]])
    logits = model(ids).logits[0, len(request.prompt) - 1 : -1].double() / (request.sampling.temperature or 1.0)
    for k, allowed in enumerate(completion.allowed or []):
        masked = torch.full_like(logits[k], -torch.inf)
        masked[allowed] = logits[k][allowed]
        logits[k] = masked
    logprob = logits.log_softmax(-1)
    chosen = logprob.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
    return chosen.tolist(), torch.special.entr(logprob.exp()).sum(-1).tolist()


def assert_exact(model: PreTrainedModel, request: Request, completion: Completion) -> None:
    logprobs, entropies = plain(model, request, completion)
    assert completion.logprobs == pytest.approx(logprobs, abs=1e-5)
    assert completion.entropies == pytest.approx(entropies, abs=1e-5)
    assert completion.finish == ("stop" if completion.ids[-1] in request.sampling.stop_ids else "length")


async def all_of(engine: TorchEngine, requests: Sequence[Request]) -> list[Completion]:
    return list(await asyncio.gather(*(engine.generate(request) for request in requests)))


def requests_of_all_kinds(n: int) -> list[Request]:
    r = random.Random(0)
    return [
        ask(
            random_prompt(r),
            seed=k,
            max_tokens=r.randint(1, 9),
            temperature=(1.0, 0.7, 1.5, 0.0)[k % 4],
            constraint=random_trie(r) if k % 3 == 0 else None,
        )
        for k in range(n)
    ]


@pytest.mark.parametrize("model", [tiny_llama(), tiny_llama(kv_heads=2), tiny_llama(kv_heads=4), a_gpt2()])
@pytest.mark.parametrize("slots", [3, 16])
def test_logprobs_and_entropies_are_those_of_a_full_pass(model: PreTrainedModel, slots: int) -> None:
    engine, requests = TorchEngine(model, slots=slots), requests_of_all_kinds(24)
    for request, completion in zip(requests, asyncio.run(all_of(engine, requests)), strict=True):
        assert_exact(model, request, completion)


@pytest.mark.slow
def test_compiled_steps_are_exact_and_compiled_once() -> None:
    model, requests, graphs = tiny_llama(), requests_of_all_kinds(12), []
    for slots in (6, 12, 6, 12):  # rows in place or gathered, one or several; and a fresh engine every time
        engine = TorchEngine(model, slots=slots, compiled=True)
        for request, completion in zip(requests, asyncio.run(all_of(engine, requests)), strict=True):
            assert_exact(model, request, completion)
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] <= graphs[1] == graphs[2] == graphs[3] < 8
    assert not counters["graph_break"]


def test_without_our_attention_too() -> None:
    model = tiny_llama(kv_heads=2)
    engine, requests = TorchEngine(model, slots=8, plain_attention=False), requests_of_all_kinds(12)
    for request, completion in zip(requests, asyncio.run(all_of(engine, requests)), strict=True):
        assert_exact(model, request, completion)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("slots", [4, 32])
def test_conversations_extend_their_cached_prefix(slots: int) -> None:
    model = tiny_llama()
    engine, read = TorchEngine(model, slots=slots), []
    inner = engine._forward

    def counting(rows: Sequence[int], tokens: Sequence[Sequence[int]], start: Sequence[int]) -> Tensor:
        read.append(sum(map(len, tokens)))
        return inner(rows, tokens, start)

    counting.copy, counting.context_length = inner.copy, inner.context_length  # type: ignore[attr-defined]
    engine._forward = counting  # type: ignore[assignment]

    async def talk(k: int) -> int:
        r = random.Random(k)
        prompt = random_prompt(r, 5, 30)
        for turn in range(6):
            constraint = random_trie(r) if k % 2 else None
            request = ask(prompt, seed=100 * k + turn, session=f"talk {k}", constraint=constraint)
            completion = await engine.generate(request)
            assert_exact(model, request, completion)
            prompt = [*prompt, *completion.ids, *random_prompt(r, 1, 12)]
        return len(prompt)

    async def go() -> int:
        return sum(await asyncio.gather(*(talk(k) for k in range(10))))

    total = asyncio.run(go())
    if slots == 32:
        assert sum(read) < total  # nothing was read twice, and forced tokens at the end were never read


@pytest.mark.parametrize("slots", [2, 3, 32])
def test_a_conversation_that_branched_off_copies_what_it_shares(slots: int) -> None:
    """However few slots there are, the results are those of a full pass; with enough, nothing shared is read twice."""
    model, read = tiny_llama(), list[int]()
    engine = TorchEngine(model, slots=slots)
    inner = engine._forward

    def counting(rows: Sequence[int], tokens: Sequence[Sequence[int]], start: Sequence[int]) -> Tensor:
        read.append(sum(map(len, tokens)))
        return inner(rows, tokens, start)

    counting.copy, counting.context_length = inner.copy, inner.context_length  # type: ignore[attr-defined]
    engine._forward = counting  # type: ignore[assignment]

    async def go() -> list[int]:
        first = ask(range(10, 60), session="a")
        assert_exact(model, first, await engine.generate(first))
        begun = sum(read)
        prompts = [[*range(10, 60), 3], list(range(10, 60)), [*range(10, 40), 4, 5], [9, 8], [*range(10, 60), 6, 7]]
        branches = [
            ask(prompt, session=f"b{k}", parent="a" if k < 4 else "b0", seed=k, max_tokens=1)
            for k, prompt in enumerate(prompts)
        ]
        done = [await engine.generate(branches[0]), *await asyncio.gather(*map(engine.generate, branches[1:]))]
        for request, completion in zip(branches, done, strict=True):
            assert_exact(model, request, completion)
        gone = ask([*range(10, 60), 8], session="c", parent="nobody")
        assert_exact(model, gone, await engine.generate(gone))
        return [sum(read) - begun, 51]

    total, alone = asyncio.run(go())
    if slots == 32:
        assert total == 1 + 1 + 2 + 2 + 2 + alone


def test_a_prompt_that_changed_reuses_only_the_common_prefix() -> None:
    model = tiny_llama()
    engine = TorchEngine(model)

    async def go() -> None:
        first = ask(range(10, 40), session="a")
        assert_exact(model, first, await engine.generate(first))
        for prompt in ([*range(10, 30), 3, 4, 5], [9, 8], [9], [9, 8, 7]):
            request = ask(prompt, session="a", seed=1)
            assert_exact(model, request, await engine.generate(request))

    asyncio.run(go())


def test_a_running_session_answers_a_second_request() -> None:
    model = tiny_llama()
    requests = [ask([5, 6, 7 + k], seed=k, session="same", stop_ids=()) for k in range(4)]
    completions = asyncio.run(all_of(TorchEngine(model, slots=2), requests))
    for request, completion in zip(requests, completions, strict=True):
        assert_exact(model, request, completion)


def test_equal_prompts_are_read_once_and_sampled_apart() -> None:
    model = tiny_llama()
    requests = [ask(range(3, 53), seed=k) for k in range(12)]
    completions = asyncio.run(all_of(TorchEngine(model), requests))
    for request, completion in zip(requests, completions, strict=True):
        assert_exact(model, request, completion)
    assert len({tuple(c.ids) for c in completions}) > 3


def test_results_do_not_depend_on_the_batch() -> None:
    model, requests = tiny_llama(), requests_of_all_kinds(24)
    together = asyncio.run(all_of(TorchEngine(model), requests))

    async def one_by_one() -> list[Completion]:
        engine = TorchEngine(model)
        return [await engine.generate(request) for request in reversed(requests)][::-1]

    for a, b in zip(together, asyncio.run(one_by_one()), strict=True):
        assert a.ids == b.ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
        assert a.entropies == pytest.approx(b.entropies, abs=1e-5)


def test_a_fresh_engine_repeats_bit_by_bit() -> None:
    model, requests = tiny_llama(), requests_of_all_kinds(24)
    runs = [asyncio.run(all_of(TorchEngine(model, slots=5), requests)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_samples_follow_the_distribution() -> None:
    model, n = tiny_llama(), 4000
    requests = [ask([5, 6, 7], seed=k, max_tokens=1, stop_ids=()) for k in range(n)]
    completions = asyncio.run(all_of(TorchEngine(model, slots=256), requests))
    with torch.inference_mode():
        expected = model(torch.tensor([[5, 6, 7]])).logits[0, -1].double().softmax(-1)
    seen = torch.bincount(torch.tensor([c.ids[0] for c in completions]), minlength=VOCAB) / n
    assert float((seen - expected).abs().sum()) / 2 < 0.06  # total variation; about 0.04 is chance


def test_temperature_zero_takes_the_likeliest() -> None:
    model = tiny_llama()
    request = ask([5, 6, 7], temperature=0.0, stop_ids=(), max_tokens=8)
    completion = asyncio.run(TorchEngine(model).generate(request))
    expected = model.generate(
        torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3), max_new_tokens=8, do_sample=False, eos_token_id=-1
    )
    assert completion.ids == expected[0, 3:].tolist()


def test_a_forced_token_is_certain() -> None:
    constraint = TokenTrie([[5, 6, 7, STOP]])
    completion = asyncio.run(TorchEngine(tiny_llama()).generate(ask([1, 2], constraint=constraint)))
    assert completion.ids == [5, 6, 7, STOP]
    assert completion.logprobs == completion.entropies == [0.0] * 4


def test_the_window_is_never_left() -> None:
    model = tiny_llama(window=32)
    requests = [ask([5] * n, seed=n, stop_ids=(), max_tokens=50) for n in (1, 30, 31, 32, 33, 200)]
    completions = asyncio.run(all_of(TorchEngine(model), requests))
    assert [len(c.ids) for c in completions] == [31, 2, 1, 0, 0, 0]
    assert {c.finish for c in completions} == {"length"}
    logprobs, _ = plain(model, requests[0], completions[0])
    assert completions[0].logprobs == pytest.approx(logprobs, abs=1e-5)


def test_long_prompts_are_read_in_pieces() -> None:
    model = tiny_llama()
    r = random.Random(0)
    requests = [ask(random_prompt(r, 50, 200), seed=k) for k in range(6)]
    requests += [ask(requests[0].prompt, seed=50)]
    completions = asyncio.run(all_of(TorchEngine(model, max_batch_tokens=32), requests))
    for request, completion in zip(requests, completions, strict=True):
        assert_exact(model, request, completion)


def test_cancelling_frees_the_slot() -> None:
    model = tiny_llama()

    async def go() -> None:
        engine = TorchEngine(model, slots=1)
        endless = asyncio.create_task(engine.generate(ask([5], stop_ids=(), max_tokens=10_000)))
        waiting = asyncio.create_task(engine.generate(ask([6], stop_ids=(), max_tokens=10_000)))
        for _ in range(20):
            await asyncio.sleep(0)
        for task in (endless, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        request = ask([7, 8], seed=3)
        assert_exact(model, request, await asyncio.wait_for(engine.generate(request), 10))
        assert engine._table.running() == []

    asyncio.run(go())


def weights_of(model: PreTrainedModel) -> Mapping[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_new_weights_drop_cached_prefixes() -> None:
    model, other = tiny_llama(0), tiny_llama(1)

    async def go() -> None:
        engine = TorchEngine(model)
        await engine.generate(ask(range(5, 40), session="a"))
        await engine.update_weights(weights_of(other), 7)
        request = ask([*range(5, 40), 3], session="a")
        completion = await engine.generate(request)
        assert_exact(other, request, completion)
        assert completion.weight_version == engine.weight_version == 7
        assert completion.versions is None

    asyncio.run(go())
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_new_weights_in_the_middle_of_a_completion() -> None:
    model, other = tiny_llama(0), tiny_llama(1)
    before = tiny_llama(0)

    async def go() -> None:
        engine = TorchEngine(model)
        request = ask([5, 6, 7], stop_ids=(), max_tokens=40)
        task = asyncio.create_task(engine.generate(request))
        for _ in range(40):
            await asyncio.sleep(0)
        sampled = len(engine._table.running()[0].ids) - 3
        assert 0 < sampled < 40
        await engine.update_weights(weights_of(other), 1)
        completion = await task
        assert completion.weight_version == 0
        assert completion.versions == [0] * sampled + [1] * (40 - sampled)
        assert completion.logprobs[:sampled] == pytest.approx(plain(before, request, completion)[0][:sampled], abs=1e-5)
        assert completion.logprobs[sampled:] == pytest.approx(plain(other, request, completion)[0][sampled:], abs=1e-5)

    asyncio.run(go())


def test_weights_that_are_the_models_own_are_not_copied() -> None:
    model = tiny_llama()

    async def go() -> None:
        engine = TorchEngine(model)
        request = ask(range(5, 30), session="a")
        first = await engine.generate(request)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        await engine.update_weights(model.state_dict(), 1)
        second = await engine.generate(request)
        assert_exact(model, request, second)
        assert second.logprobs != pytest.approx(first.logprobs, abs=1e-3)

    asyncio.run(go())


def test_weights_of_another_model_change_nothing() -> None:
    model = tiny_llama()
    before = weights_of(model)
    engine = TorchEngine(model)
    wrong_shape = {**before, "model.norm.weight": torch.ones(5)}
    for weights in ({"x": torch.ones(1)}, {"model.norm.weight": torch.ones(32)}, wrong_shape):
        with pytest.raises(CheckpointError):
            asyncio.run(engine.update_weights(weights, 1))
    assert engine.weight_version == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_failing_model_fails_the_requests_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    engine = TorchEngine(model, slots=2)

    async def go() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(engine._forward, "model", _broken)
            results = await asyncio.gather(
                *(engine.generate(ask([5, k + 3])) for k in range(5)), return_exceptions=True
            )
            assert all(isinstance(result, EngineError) and "out of order" in str(result) for result in results)
        request = ask([7, 8])
        assert_exact(model, request, await engine.generate(request))

    asyncio.run(go())


class _broken:
    device, dtype, training = torch.device("cpu"), torch.float32, False

    def __new__(cls, **_: Any) -> Any:
        raise RuntimeError("out of order")


def test_weights_that_are_not_finite_are_told() -> None:
    model = tiny_llama()
    model.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        asyncio.run(TorchEngine(model).generate(ask([5])))


def test_closing_fails_what_waits() -> None:
    async def go() -> None:
        engine = TorchEngine(tiny_llama(), slots=1)
        tasks = [asyncio.create_task(engine.generate(ask([5], stop_ids=(), max_tokens=200))) for _ in range(3)]
        for _ in range(10):
            await asyncio.sleep(0)
        await engine.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, EngineError) for result in results)

    asyncio.run(go())


def test_one_engine_serves_several_event_loops() -> None:
    model = tiny_llama()
    engine = TorchEngine(model)

    async def abandon() -> None:
        task = asyncio.create_task(engine.generate(ask([5], stop_ids=(), max_tokens=200)))
        await asyncio.sleep(0)
        task.cancel()

    for seed in range(3):
        request = ask([7, 8, 9], seed=seed)
        assert_exact(model, request, asyncio.run(engine.generate(request)))
        asyncio.run(abandon())


def test_offloaded_to_a_thread_the_loop_stays_free() -> None:
    model, requests = tiny_llama(), requests_of_all_kinds(12)

    async def go() -> None:
        engine = TorchEngine(model, slots=4, offload=True)
        for request, completion in zip(requests, await all_of(engine, requests), strict=True):
            assert_exact(model, request, completion)
        await engine.close()

    asyncio.run(go())


class Paused:
    """A model call that waits for a sign."""

    def __init__(self, engine: TorchEngine) -> None:
        self.inner, self.started, self.go = engine._forward, threading.Event(), threading.Event()
        engine._forward = self  # type: ignore[assignment]

    def __call__(self, *args: Any) -> Tensor:
        self.started.set()
        assert self.go.wait(10)
        return self.inner(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def entered(self) -> None:
        while not self.started.is_set():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("same", [False, True])
def test_offloaded_requests_may_go_while_others_are_computed(same: bool) -> None:
    """One that waits for the second batch of its round is cancelled and released during the first; with `same`, one
    that another reads along with."""
    model = tiny_llama(window=512)
    long, short = [5] * 200, [6] * 150
    prompts = [long, short, *([short] if same else [])]

    async def go() -> list[Completion]:
        engine = TorchEngine(model, slots=8, max_batch_tokens=200, offload=True)
        paused = Paused(engine)
        tasks = [
            asyncio.create_task(engine.generate(ask(prompt, seed=n, session=str(n))))
            for n, prompt in enumerate(prompts)
        ]
        await paused.entered()
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        await engine.release("1")
        paused.go.set()
        done = await asyncio.gather(tasks[0], *tasks[2:])
        await engine.close()
        return done

    done = asyncio.run(go())
    for n, completion in zip([0, 2], done, strict=False):
        assert_exact(model, ask(prompts[n], seed=n), completion)


def test_offloaded_twins_outlive_the_one_that_reads_for_them() -> None:
    """The one that is computed goes during the call, and its twin still has what was read."""
    model, prompt = tiny_llama(window=512), [7, 8, 9] * 50

    async def go() -> Completion:
        engine = TorchEngine(model, slots=8, offload=True)
        paused = Paused(engine)
        tasks = [asyncio.create_task(engine.generate(ask(prompt, seed=n, session=str(n)))) for n in range(2)]
        await paused.entered()
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        await engine.release("0")
        paused.go.set()
        completion = await tasks[1]
        await engine.close()
        return completion

    assert_exact(model, ask(prompt, seed=1), asyncio.run(go()))


def test_a_model_in_training_mode_samples_without_dropout() -> None:
    model = a_gpt2()
    model.train()
    request = ask([5, 6])
    completion = asyncio.run(TorchEngine(model).generate(request))
    assert model.training
    assert_exact(model.eval(), request, completion)


def test_recurrent_models_are_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    with pytest.raises(EngineError, match="keeps states"):
        TorchEngine(MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=2)))
