"""The engine contract, for every engine that runs without a network."""

import asyncio
from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from palaestra.agents.constraint import TokenTrie
from palaestra.agents.engines.base import Engine, Request, SamplingParams
from palaestra.agents.engines.scripted import ScriptedEngine
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.errors import EngineError

STOP, WINDOW = 2, 24


def torch_engine() -> Engine:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=WINDOW,
    )
    return TorchEngine(LlamaForCausalLM(config), slots=4)


def scripted_engine() -> Engine:
    return ScriptedEngine(_script, context_length=WINDOW)


def _script(request: Request) -> list[int]:
    if request.constraint is None:
        return [7] * 40
    ids, node = [], request.constraint.root
    while choices := request.constraint.allowed(node):
        ids.append(choices[-1])
        node = request.constraint.child(node, choices[-1])
    return ids


@pytest.fixture(params=[torch_engine, scripted_engine])
def engine(request: pytest.FixtureRequest) -> Engine:
    make: Callable[[], Engine] = request.param
    return make()


def ask(prompt: list[int], max_tokens: int = 6, seed: int = 0, constraint: TokenTrie | None = None) -> Request:
    sampling = SamplingParams(max_tokens=max_tokens, stop_ids=(STOP,), seed=seed)
    return Request(prompt=prompt, sampling=sampling, constraint=constraint, session=f"s{seed}")


def test_it_is_an_engine(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert (engine.weight_version, engine.context_length) == (0, WINDOW)


def test_lists_have_an_entry_per_token(engine: Engine) -> None:
    async def go() -> None:
        answers = await asyncio.gather(*(engine.generate(ask([1, 3 + k], 1 + k % 6, seed=k)) for k in range(12)))
        for k, answer in enumerate(answers):
            assert 1 <= len(answer.ids) <= 1 + k % 6
            assert len(answer.ids) == len(answer.logprobs) == len(answer.entropies)
            assert all(lp <= 0 for lp in answer.logprobs)
            assert all(h >= 0 for h in answer.entropies)
            assert answer.allowed is None
            assert answer.finish == ("stop" if answer.ids[-1] == STOP else "length")

    asyncio.run(go())


def test_a_constraint_is_obeyed_and_told(engine: Engine) -> None:
    trie = TokenTrie([[5, 6, STOP], [5, 7, 9, STOP], [8, STOP]])

    async def go() -> None:
        for seed in range(8):
            answer = await engine.generate(ask([1, 2, 3], seed=seed, constraint=trie))
            node, allowed = trie.root, []
            for token in answer.ids:
                allowed.append(trie.allowed(node))
                node = trie.child(node, token)
            assert answer.finish == "stop"
            assert not trie.allowed(node)
            assert answer.allowed == allowed

    asyncio.run(go())


def test_the_window_ends_a_completion(engine: Engine) -> None:
    async def go() -> None:
        full = await engine.generate(ask([1] * WINDOW))
        assert (full.ids, full.finish) == ([], "length")
        close = await engine.generate(ask([1] * (WINDOW - 2)))
        assert len(close.ids) <= 2

    asyncio.run(go())


def test_an_empty_prompt_is_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match="empty"):
        asyncio.run(engine.generate(ask([])))


def test_the_weight_version_is_told(engine: Engine) -> None:
    async def go() -> None:
        await engine.update_weights({}, 3)
        assert engine.weight_version == 3
        assert (await engine.generate(ask([1, 2]))).weight_version == 3

    asyncio.run(go())


def test_sessions_can_be_released_at_any_time(engine: Engine) -> None:
    async def go() -> None:
        await engine.release("never seen")
        first = await engine.generate(ask([1, 2], seed=5))
        await engine.release("s5")
        await engine.release("s5")
        assert (await engine.generate(ask([1, 2], seed=5))).ids == first.ids

    asyncio.run(go())


def test_a_closed_engine_refuses(engine: Engine) -> None:
    async def go() -> None:
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(ask([1]))

    asyncio.run(go())
