"""Asking, searching, reading and answering: what comes back, what counts, and what nobody may do."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tantivy", reason="tantivy is not installed: pip install 'palaestra[search]'")

from palaestra import make
from palaestra.envs.calls import find_call
from palaestra.envs.core import Step
from palaestra.envs.episode import seen
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.search.env import QuestionsEnv
from palaestra.envs.search.questions import LEVELS
from palaestra.envs.search.request import TOOLS
from palaestra.envs.search.suite import load
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import ConfigError, DataError, EnvError, MissingExtraError, UnknownNameError

ID = "search/Questions-v0"


def play(task: Task, *actions: Any, **options: Any) -> list[Step[str]]:
    """What comes of the actions, in order."""

    async def run() -> list[Step[str]]:
        async with make(ID, **options) as env:
            await env.reset(task=task)
            return [await env.step(action) for action in actions]

    return asyncio.run(run())


def known(task: Task) -> Any:
    from palaestra.envs.search.shelf import fetch

    return fetch(task.params).question


async def solve(task: Task, **options: Any) -> Step[str]:
    async with make(ID, **options) as env:
        await env.reset(task=task)
        while True:
            step = await env.step(await env.oracle())
            if step.terminated or step.truncated:
                return step


@pytest.mark.parametrize("level", sorted(LEVELS))
@pytest.mark.parametrize("action", ["message", "text"])
def test_the_oracle_solves_every_question(level: str, action: str) -> None:
    for split in ("train", "validation", "test"):
        suite = load(split, level, action=action)
        for task in suite[:: len(suite) // 60]:
            step = asyncio.run(solve(task))
            assert step.info["success"], task
            assert (step.reward, step.info["score"], step.terminated) == (1.0, 1.0, True)


def test_an_episode_as_it_is_seen() -> None:
    task = load("test", "easy")[3]
    question = known(task)

    async def run() -> None:
        async with make(ID) as env:
            first = await env.reset(task=task)
            assert first.observation.endswith(f"\n\nQuestion: {question.text}")
            assert first.info["task_type"] == "chain"
            found = await env.step(f"I think I should look. <search>{question.pages[0]}</search> and more")
            assert re.match(rf"<result>\n\[p\d+\] {question.pages[0]}: {question.pages[0]} ", found.observation)
            assert found.observation.count("\n[p") <= 5
            assert found.info["tool"] == {"name": "search", "ok": True, "results": 5}
            read = await env.step(f"<read>{question.pages[0].upper()}</read>")
            assert read.observation.startswith(f"<result>\n{question.pages[0]}\n{question.pages[0]} ")
            assert question.answers[0] in read.observation
            assert read.info["tool"]["ok"]
            wrong = await env.step("<answer>Nobody</answer>")
            assert (wrong.reward, wrong.terminated, wrong.info["success"]) == (0.0, True, False)
            with pytest.raises(EnvError):
                await env.step("<answer>again</answer>")

    asyncio.run(run())


def test_tool_calls_in_openais_shape() -> None:
    task = load("test", "easy")[3]
    question = known(task)

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        function = {"name": name, "arguments": json.dumps(arguments)}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        }

    steps = play(
        task,
        call("search", query=question.pages[0]),
        call("read", title=question.pages[0], part=1),
        call("read", title=question.pages[0], part=2),
        call("answer", answer=question.answers[0]),
    )
    assert [step.info["tool"]["ok"] for step in steps] == [True, True, False, True]
    assert "has 1 part; there is no part 2" in steps[2].observation
    assert steps[-1].reward == 1.0
    described = QuestionsEnv().tools()
    assert [tool["function"]["name"] for tool in described] == list(TOOLS)


def test_long_pages_are_read_in_parts() -> None:
    task = load("test", "easy", part=100)[3]
    title = known(task).pages[0]
    first, second, last, none = play(
        task,
        f"<read>{title}</read>",
        f"<read>{title}, part 2</read>",
        f"<read>{title} (part 3)</read>",
        "<read>x part 99</read>",
    )
    assert re.search(r"\(part 1 of \d\)\n</result>$", first.observation)
    assert "(part 2 of" in second.observation
    assert "(part 3 of" in last.observation
    assert none.info["invalid"]
    text = "".join(step.observation.split("\n")[2] for step in (first, second, last))
    whole = play(load("test", "easy")[3], f"<read>{title}</read>")[0].observation
    assert text in whole


@pytest.mark.parametrize(
    ("answer", "exact", "f1", "aepo"),
    [
        ("{gold}", 1.0, 1.0, 1.1),
        ("the {gold}!", 1.0, 1.0, 1.1),
        ("{gold} or Nobody At All", 0.0, None, None),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_rewards(answer: str, exact: float, f1: float | None, aepo: float | None) -> None:
    task = next(task for task in load("test", "easy") if " " in known(task).answers[0])
    said = f"<answer>{answer.format(gold=known(task).answers[0])}</answer>"
    both = ("<search>town</search>", "<read>p1</read>", said)
    assert play(task, *both)[-1].reward == exact
    partial = play(task, *both, reward="f1")[-1].reward
    assert 0 < partial < 1 if f1 is None else partial == f1
    assert play(task, *both, reward="aepo")[-1].reward == pytest.approx(partial + 0.1 if aepo is None else aepo)
    assert play(task, said, reward="aepo")[-1].reward == partial, "no bonus without both tools"
    assert play(task, said)[-1].info["success"] == bool(exact)


def test_aliases_count() -> None:
    task = next(task for task in load("test", "easy") if len(known(task).answers) > 1)
    for answer in known(task).answers:
        assert play(task, f"<answer>{answer}</answer>")[0].reward == 1.0


def test_who_never_answers_is_cut_off_and_pays_by_aepo() -> None:
    task = load("test", max_turns=3)[0]
    for reward, paid in (("exact", 0.0), ("aepo", -1.0)):
        steps = play(task, "hm", "<search>river</search>", "<answer>unfinished", reward=reward)
        assert [step.truncated for step in steps] == [False, False, True]
        assert [step.info["invalid"] for step in steps] == [True, False, True]
        assert (steps[-1].reward, steps[-1].info["score"], steps[-1].terminated) == (paid, paid, False)


HOSTILE = (
    "",
    "\x00\x07\x1b[2J",
    "<search></search>",
    "<read>   </read>",
    "<search>" * 100_000,
    "<search>" + "\u0430nswer " * 200_000 + "</search>",
    "<search>title:x AND (body:[a TO z] OR *) ^9 \"unclosed</search>",
    "<read>" + " " * 100_000 + "part 1</read>",
    "<read>" + "part 1 " * 50_000 + "</read>",
    "<read>../../etc/passwd</read>",
    "<search>{" + "[" * 10_000 + "</search>",
    "<ｓearch>fullwidth</ｓearch>",
    "<search>\ud800</search>",
    None,
    7,
    [],
    {"role": "assistant", "content": 3, "tool_calls": "x"},
    {"tool_calls": [{"function": {"name": "search", "arguments": {"query": ["a"], "k": float("nan")}}}]},
)  # fmt: skip


def test_hostile_actions_are_answered_at_once_and_the_episode_goes_on() -> None:
    task = load("test", "easy", max_turns=100)[0]
    gold = known(task).answers[0]
    for style in ("message", "text"):
        for action in HOSTILE:
            started = time.monotonic()
            step, end = play(
                task, action, f"<answer>{gold}</answer>" if style == "message" else f"answer {gold}", action=style
            )
            assert time.monotonic() - started < 2, repr(action)[:80]
            assert not step.terminated
            assert len(step.observation) < 10_000
            assert end.reward == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "x" * 1_000_000,
        "{gold} " * 20_000,
        "{gold}" + " " * 9000 + "?x",
        "Nobody, {gold}",
        "\u0410" * 10,
        "{gold}\u200b",
    ],
)
def test_hostile_answers_earn_nothing(answer: str) -> None:
    task = load("test", "easy")[0]
    step = play(task, f"<answer>{answer.format(gold=known(task).answers[0])}</answer>")[0]
    assert (step.reward, step.terminated, step.info["success"]) == (0.0, True, False)
    assert len(step.observation) < 10_000


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["", "<search>", "<read>", "search ", "read "]),
    st.text(max_size=80),
    st.sampled_from(["message", "text"]),
)
def test_nothing_that_is_said_becomes_a_call_of_the_environments(before: str, text: str, style: str) -> None:
    close = before.replace("<", "</") if "<" in before else ""
    for step in play(load("test", "easy")[0], f"{before}{text}<answer>7</answer>{close}", action=style):
        inside = step.observation.removeprefix("<result>\n").removesuffix("\n</result>")
        assert "<" not in inside
        assert ">" not in inside
        assert find_call(step.observation, TOOLS) is None


@pytest.mark.parametrize("style", ["message", "text"])
def test_admissible_commands_are_bounded_and_mostly_enough(style: str) -> None:
    offered = taken = 0

    async def run(task: Task) -> None:
        nonlocal offered, taken
        async with make(ID, action=style) as env:
            turn: Any = await env.reset(task=task)
            while not getattr(turn, "terminated", False):
                commands = turn.info["admissible_commands"]
                assert 1 < len(commands) == len(set(commands)) <= 60
                advice = await env.oracle()
                offered, taken = offered + (advice in commands), taken + 1
                turn = await env.step(advice)
                assert not turn.info["invalid"]
            assert turn.info["admissible_commands"] == []

    for task in load("test", "medium")[:40]:
        asyncio.run(run(task))
    assert offered / taken > 0.85
    assert "admissible_commands" not in play(load("test", offer=0)[0], "x")[0].info


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(LEVELS)), st.integers(0, 10_000), st.data())
def test_siblings_equal_the_episode_that_they_left(level: str, seed: int, data: Any) -> None:
    async def run() -> None:
        async with make(ID, level=level) as env:
            turn: Any = await env.reset(seed=seed)
            for _ in range(data.draw(st.integers(0, 4))):
                turn = await env.step(
                    data.draw(st.sampled_from([c for c in turn.info["admissible_commands"] if "<ans" not in c]))
                )
            siblings = [env, *await env.fork(2), *await fork_by_replay(env, 1)]
            advice = await env.oracle()
            assert [await sibling.oracle() for sibling in siblings] == [advice] * 4
            await siblings.pop(1).close()
            for action in (advice, "<search>bridge</search>", "<answer>1700</answer>"):
                went = [seen("", await sibling.step(action)) for sibling in siblings]
                assert went == went[:1] * 3
                if action.startswith("<answer>"):
                    break
            for sibling in siblings[1:]:
                await sibling.close()

    asyncio.run(run())


def test_tasks_are_stable_and_of_one_split() -> None:
    suite = load_suite("search/hard:test")
    assert [task.name for task in suite[248:252]] == ["hard-0-248", "hard-0-249", "hard-1-0", "hard-1-1"]
    texts = {split: {known(task).text for task in load(split, "medium")} for split in ("train", "validation", "test")}
    assert [len(texts[split]) for split in ("train", "validation", "test")] == [4000, 500, 500]
    assert not texts["train"] & texts["validation"]
    assert not (texts["train"] | texts["validation"]) & texts["test"]


def test_larger_worlds() -> None:
    task = load("test", "hard", pages=3000)[0]
    assert task.name == "hard-3000-0-0"
    assert asyncio.run(solve(task)).reward == 1.0


def test_a_large_corpus_is_built_beside_the_other_episodes() -> None:
    async def run() -> int:
        async with make(ID) as one, make(ID) as other:
            await one.reset(seed=1)
            reset = asyncio.create_task(other.reset(task=load("test", "easy", pages=5000)[0]))
            turns = 0
            while not reset.done():
                await one.reset(seed=1)
                await asyncio.sleep(0)
                turns += 1
            assert (await other.step(await other.oracle())).info["tool"]["ok"]
            return turns

    assert asyncio.run(run()) > 5


def test_without_tantivy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tantivy", None)
    task = load("validation", "easy", pages=137)[0]
    with pytest.raises(MissingExtraError, match=r"palaestra\[fulltext\]"):
        asyncio.run(QuestionsEnv().reset(task=task))


GOOD = {"split": "test", "level": "easy", "world": 0, "index": 0}


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, UnknownNameError, "split"),
        (GOOD | {"level": "eazy"}, UnknownNameError, "easy"),
        (GOOD | {"world": 2}, DataError, "world"),
        (GOOD | {"world": "0"}, DataError, "world"),
        (GOOD | {"index": 250}, DataError, "index"),
        (GOOD | {"index": -1}, DataError, "index"),
        (GOOD | {"pages": 10**9}, DataError, "pages"),
        (GOOD | {"max_turns": 0}, DataError, "max_turns"),
        (GOOD | {"reward": "f2"}, UnknownNameError, "f1"),
        (GOOD | {"action": ["text"]}, UnknownNameError, "action"),
        ({"question": "1", "set": "hotpot", "split": "test"}, UnknownNameError, "hotpotqa"),
        ({"question": "1", "set": "file", "split": "test", "data": 3}, DataError, "folder"),
    ],
)
def test_params_that_name_no_question_are_refused(params: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        asyncio.run(QuestionsEnv().reset(task=Task(env=ID, name="t", params=params)))


def test_levels_and_options_that_do_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="'medium'"):
        load("train", "medum")
    with pytest.raises(UnknownNameError, match="'validation'"):
        load("valid")
    with pytest.raises(ConfigError, match="rewards"):
        load("train", rewards="f1")
    with pytest.raises(EnvError, match="no option turns"):
        QuestionsEnv(turns=3)


def test_nothing_is_asked_before_reset_or_after_close() -> None:
    async def run() -> None:
        env = QuestionsEnv()
        with pytest.raises(EnvError, match="reset"):
            await env.oracle()
        await env.reset(seed=1)
        assert "answer: " in await env.render()
        await env.close()
        with pytest.raises(EnvError, match="reset"):
            await env.step("<search>x</search>")

    asyncio.run(run())
