"""What vLLM's workers are told of a request, what they mask and measure, and what comes back."""

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.agents.constraint import TokenTrie
from palaestra.agents.engines.base import Cut, Request, SamplingParams
from palaestra.agents.engines.sampling import sample
from palaestra.agents.engines.vllm.ledger import Ledger
from palaestra.agents.engines.vllm.measure import measure
from palaestra.agents.engines.vllm.requests import completion, parameters, versions_of
from palaestra.agents.engines.vllm.rule import Rule, paths, rule_in, rule_of
from palaestra.agents.engines.vllm.transport import Raw, Span
from palaestra.agents.engines.vllm.watching import watched
from palaestra.errors import ConfigError, EngineError

STOP = 2
TRIE = TokenTrie([[5, 6, STOP], [5, 7, 9, STOP], [8, STOP]])


def ask(constraint: TokenTrie | None = None, **changes: Any) -> Request:
    return Request(prompt=[1], sampling=SamplingParams(stop_ids=(STOP,), **changes), constraint=constraint)


def entropy_of(logits: torch.Tensor) -> float:
    return float(torch.special.entr(logits.double().softmax(-1)).sum())


@settings(deadline=None)
@given(st.sets(st.lists(st.integers(3, 9), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8))
def test_a_constraint_survives_the_journey(completions: set[tuple[int, ...]]) -> None:
    trie = TokenTrie([[*ids, STOP] for ids in completions])
    told = msgspec.to_builtins(rule_of(ask(trie), "k"))
    arrived = rule_in({"palaestra": msgspec.json.decode(msgspec.json.encode(told))})
    assert arrived is not None
    assert arrived.trie is not None
    assert arrived.trie.root == trie.root
    assert paths(trie.root) == sorted([*ids, STOP] for ids in completions)


def test_requests_of_others_have_no_rule() -> None:
    assert rule_in(None) is None
    assert rule_in({"other": 1}) is None
    with pytest.raises(msgspec.ValidationError):
        rule_in({"palaestra": {"key": 3}})


@settings(deadline=None)
@given(seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]), top_k=st.integers(0, 5))
def test_what_is_measured_is_what_the_embedded_engine_samples_from(seed: int, temperature: float, top_k: int) -> None:
    torch.manual_seed(seed)
    logits, cut = torch.randn(3, 20) * 3, Cut(top_k, 0.7) if top_k else None
    expected = sample(logits, [temperature] * 3, [0.5] * 3, [None, [1, 4, 9], None], [cut, cut, None])
    masked = logits.clone()
    values = measure(masked, [0, 1, 2], [temperature] * 3, [None, [1, 4, 9], None], [cut, cut, None])
    assert values[:, 0].tolist() == pytest.approx(expected.entropies, abs=1e-5)
    assert torch.equal(masked[2], logits[2])
    for row, token in enumerate(expected.ids):
        cut_logprob = (masked[row].double() / (temperature or 1.0)).log_softmax(-1)[token]
        assert float(cut_logprob + values[row, 1]) == pytest.approx(expected.logprobs[row], abs=1e-5)


def test_rows_of_others_are_left_alone() -> None:
    logits = torch.randn(4, 7)
    before = logits.clone()
    values = measure(logits, [1, 3], [1.0, 1.0], [None, [2, 5]], [None, None])
    assert torch.equal(logits[:3], before[:3])
    assert logits[3].isfinite().tolist() == [k in (2, 5) for k in range(7)]
    assert values.shape == (2, 2)
    assert float(values[0, 0]) == pytest.approx(entropy_of(before[1]), abs=1e-5)


def test_a_watched_request_follows_its_constraint() -> None:
    told = SimpleNamespace(extra_args=parameters(ask(TRIE), "k", 8)["extra_args"], temperature=1.0)
    request = watched(told)
    assert request is not None
    assert [request.allowed(ids) for ids in ([], [5], [5, 7], [8, STOP])] == [[5, 8], [6, 7], [9], None]


def test_the_ledger_keeps_the_last_of_a_position_and_forgets_what_was_taken() -> None:
    ledger = Ledger(most=2)
    ledger.note(["a"], [0], torch.tensor([[9.0, 9.0]]))  # a part of a long prompt
    for position in range(3):
        ledger.note(["a", "b"], [position] * 2, torch.tensor([[position, 0.0], [position + 10.0, 0.0]]))
    assert ledger.take("a", 3) == [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]
    assert ledger.take("a", 3) == []
    assert ledger.take("b", 4) == []
    ledger.note(["c", "d", "e"], [0, 0, 0], torch.zeros(3, 2))
    assert [len(ledger.take(key, 1)) for key in "cde"] == [0, 1, 1]


def test_spans_say_the_version_of_each_token() -> None:
    spans = [Span("default", 0, 1), Span("3", 1, 3), Span("4", 3, 9)]
    assert versions_of(spans, 5, 2) == [2, 3, 3, 4, 4]
    raw = Raw(ids=[5, 6, 7], logprobs=[-1.0] * 3, finish="length", spans=[Span("3", 0, 2), Span("4", 2, 3)])
    told = completion(ask(), raw, [[1.0, 0.0]] * 3, 3)
    assert (told.weight_version, told.versions, told.finish) == (3, [3, 3, 4], "length")


def test_a_completion_ends_with_its_constraint() -> None:
    raw = Raw(ids=[8, STOP, 4], logprobs=[-1.0, -0.5, -0.2], finish="length")
    told = completion(ask(TRIE), raw, [], 0)
    assert (told.ids, told.allowed, told.finish, told.entropies) == ([8, STOP], [[5, 8], [STOP]], "stop", [])
    with pytest.raises(EngineError, match="was not obeyed"):
        completion(ask(TRIE), Raw(ids=[4], logprobs=[0.0], finish="stop"), [], 0)


def test_what_cannot_be_exact_is_refused() -> None:
    raw = Raw(ids=[4], logprobs=[-1.0], finish="length")
    with pytest.raises(EngineError, match="top_k and top_p need"):
        completion(ask(top_k=3), raw, [], 0)
    with pytest.raises(EngineError, match="not finite"):
        completion(ask(), Raw(ids=[4], logprobs=[math.nan], finish="stop"), [], 0)
    with pytest.raises(ConfigError, match="at temperature 0 or from 0.01"):
        parameters(ask(temperature=0.001), "k", 3)


def test_measurements_are_fetched_together() -> None:
    from palaestra.agents.engines.vllm.gathering import Gathering

    asked: list[str] = []

    class Workers:
        async def call(self, method: str, *arguments: str) -> list[Any]:
            asked.append(arguments[0])
            counts = msgspec.json.decode(arguments[0])
            return [{"rows": {k: [[1.0, 0.0]] * n for k, n in counts.items()}, "failure": ""}]

    async def go() -> None:
        gathering = Gathering(Workers())  # type: ignore[arg-type]
        rows = await asyncio.gather(*(gathering.take(f"k{n}", n) for n in range(1, 6)))
        assert [len(each) for each in rows] == [1, 2, 3, 4, 5]
        assert len(asked) == 1

    asyncio.run(go())


def test_a_rule_is_small_where_nothing_is_asked() -> None:
    assert msgspec.json.encode(Rule(key="k")) == b'{"key":"k"}'
