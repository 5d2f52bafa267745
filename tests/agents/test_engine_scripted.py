import asyncio

import pytest

from palaestra.agents.constraint import TokenTrie
from palaestra.agents.engines.base import Completion, Request, SamplingParams
from palaestra.agents.engines.scripted import ScriptedEngine
from palaestra.errors import EngineError


def ask(engine: ScriptedEngine, constraint: TokenTrie | None = None, max_tokens: int = 8) -> Completion:
    sampling = SamplingParams(max_tokens=max_tokens, stop_ids=(2,))
    return asyncio.run(engine.generate(Request(prompt=[1], sampling=sampling, constraint=constraint)))


def test_completions_come_in_order_and_end() -> None:
    engine = ScriptedEngine([[7, 2], [8, 9, 2, 5]])
    assert [ask(engine).ids, ask(engine).ids] == [[7, 2], [8, 9, 2]]
    with pytest.raises(EngineError, match="2 completions"):
        ask(engine)
    assert len(engine.requests) == 3


def test_a_script_can_cycle_or_be_a_function() -> None:
    engine = ScriptedEngine([[7, 2]], cycle=True)
    assert [ask(engine).ids for _ in range(3)] == [[7, 2]] * 3
    assert ask(ScriptedEngine(lambda request: [request.prompt[0] + 4, 2])).ids == [5, 2]


def test_a_completion_is_cut_at_the_limit() -> None:
    completion = ask(ScriptedEngine([[7, 8, 2]]), max_tokens=2)
    assert (completion.ids, completion.finish) == ([7, 8], "length")


def test_the_constraint_is_kept_and_told() -> None:
    trie = TokenTrie([[7, 8, 2], [7, 9, 2]])
    assert ask(ScriptedEngine([[7, 9, 2]]), trie).allowed == [[7], [8, 9], [2]]
    with pytest.raises(EngineError, match="not allowed"):
        ask(ScriptedEngine([[7, 5, 2]]), trie)
