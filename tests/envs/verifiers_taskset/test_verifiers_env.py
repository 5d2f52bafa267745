"""Tasksets and environments of the real package verifiers, through our contract."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.foreign_python import python_with

from palaestra.envs.checks.supervisor import supervised
from palaestra.envs.core import Env
from palaestra.envs.registry import make, spec
from palaestra.envs.tasks import Task, load_suite
from palaestra.envs.verifiers.chosen import PLACE
from palaestra.errors import ConfigError, DataError, EnvError, UnknownNameError, WorkerError

TASKSETS = str(Path(__file__).parents[2] / "support" / "verifiers_tasksets")
ID = "verifiers/Environment-v0"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if spec(ID).placement.kind == "interpreter":
        python_with(PLACE)


def made(taskset: str, **kwargs: Any) -> Env[Any, Any]:
    return make(ID, taskset=taskset, path=TASKSETS, **kwargs)


def task(index: Any, **params: Any) -> Task:
    return Task(env=ID, name=str(index), params={"index": index, **params})


def test_single_replies_with_weighted_rewards() -> None:
    async def play() -> None:
        async with made("capitals-taskset", args={"polite": True}) as env:
            first = await env.reset(task=task(0))
            assert first.observation == (
                "Be polite.\n\nWhat is the capital of France?\n\n[assistant]\nParis\n\nWhat is the capital of Peru?"
            )
            assert first.info["task_type"] == "capitals-taskset"
            refused = await env.step({"role": "assistant"})
            assert refused.info["invalid"]
            assert not refused.terminated
            last = await env.step("It is Lima.")
            assert last[:4] == ("", 1.25, True, False)
            assert last.info["rewards"] == {"right": 0.75, "short": 0.25, "hooks": 0.25}
            assert last.info["metrics"] == {"words": 3.0}
            assert last.info["success"]
            with pytest.raises(EnvError, match="reset"):
                await env.step("more")
            await env.reset(task=task(1))
            wrong = await env.step("x" * 1_000_000 + "\x00")
            assert wrong.info["rewards"] == {"right": 0.0, "short": 0.0, "hooks": 0.25}
            assert not wrong.info["success"]
            await env.reset(seed=3)

    asyncio.run(play())


def test_several_turns() -> None:
    async def play() -> None:
        async with made("guess-taskset") as env:
            first = await env.reset(task=task(10))  # the number is 20
            assert first.observation == "Guess my number."
            assert (await env.step("30")).observation == "lower"
            assert (await env.step({"role": "assistant", "content": "10"})).observation == "higher"
            last = await env.step("20")
            assert last[1:4] == (pytest.approx(1 / 3), True, False)
            assert last.info["metrics"] == {"turns": 3.0}
            await env.reset(task=task(10))
            gave_up = await env.step("I give up")  # the taskset's own stop condition
            assert (gave_up.reward, gave_up.terminated) == (0.0, True)
            assert gave_up.info["stop_condition"] == "gave_up"
            await env.reset(task=task(10))
            steps = [await env.step("1") for _ in range(8)]  # the agent's max_turns
            assert [step.terminated for step in steps] == [False] * 7 + [True]
            assert steps[-1].info["stop_condition"] == "max_turns"

    asyncio.run(play())


@pytest.mark.parametrize("taskset", ["sums-taskset", "guess-taskset"])
def test_the_contract_is_kept(taskset: str) -> None:
    here = msgspec.structs.replace(spec(ID), kwargs={"taskset": taskset, "path": TASKSETS})
    report = supervised(here, episodes=2, max_steps=5)
    assert report.ok, str(report)
    assert report.determinism == "exact"


def test_suites_are_split_and_begin_the_same_episode_again() -> None:
    train, validation, test = (
        load_suite(f"verifiers/capitals-taskset:{split}", path=TASKSETS) for split in ("train", "validation", "test")
    )
    assert len(train) + len(validation) + len(test) == 64
    peru = [{0, 3} & {one.params["index"] for one in split} for split in (train, validation, test)]
    assert sorted(map(len, peru)) == [0, 0, 2], "the same question twice is in one split"
    assert len({one.name for split in (train, validation, test) for one in split}) == 64
    own = load_suite("verifiers/guess-taskset:test[:5]", path=TASKSETS)
    assert [one.name for one in own] == [f"guess-{n}" for n in range(5)]

    async def play() -> None:
        async with make(ID) as env:
            await env.reset(task=own[4])  # 9, where the split is the test's
            assert (await env.step("9")).reward == 1.0

    asyncio.run(play())
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("verifiers/capitals-taskset:spring", path=TASKSETS)
    with pytest.raises(EnvError, match="there is no split 'validation'"):
        load_suite("verifiers/guess-taskset:validation", path=TASKSETS)
    with pytest.raises((ConfigError, DataError)):
        load_suite("verifiers:test", path=5)


REFUSED = {
    "judged-taskset": r"graded by a model behind an API \(env.taskset.task.judge: openai.*judges=True",
    "boxed-taskset": "containers",
    "tools-taskset": "tools that verifiers serves over MCP",
    "debate-taskset": "several agents.*pro, con",
    "nothing-here": "not found",
    "json": "exports no Taskset",
}


def test_what_cannot_be_played_is_refused() -> None:
    async def begin() -> None:
        async with made("sums-taskset") as env:
            for taskset, words in REFUSED.items():
                with pytest.raises(EnvError, match=words):
                    await env.reset(task=task(0, taskset=taskset))

    asyncio.run(begin())


FAILING = {
    "raise": "the checker broke",
    "exit": "code 3",  # it ends the worker; the next reset has another
    "text": "could not convert",
    "nan": "nan",
    "inf": "inf",
}


def test_rewards_that_fail_are_errors_of_the_episode() -> None:
    async def play() -> None:
        async with made("odd-taskset") as env:
            for what, words in FAILING.items():
                await env.reset(task=task(0, args={"what": what}))
                with pytest.raises(EnvError, match=words):
                    await env.step("x")
                await env.reset(task=task(0, args={"what": "fine"}))
                assert (await env.step("x")).reward == 0.5

    asyncio.run(play())


def test_tasksets_that_fail_and_wrong_params() -> None:
    async def play() -> None:
        async with made("odd-taskset") as env:
            for params, words in (
                ({"args": {"what": "no load"}}, "no network here"),
                ({"args": {"what": "none"}}, "0 rows"),
                ({"args": {"what": "image"}}, "image"),
                ({"args": {"most_wrong": 1}}, "most_wrong"),
                ({"taskset": 5}, "taskset"),
                ({"args": []}, "verifiers taskset"),
            ):
                with pytest.raises(EnvError, match=words):
                    await env.reset(task=task(0, **params))
            for index, words in ((99, "3 rows, and row 99"), (-1, "index"), ("a", "index")):
                with pytest.raises(EnvError, match=words):
                    await env.reset(task=task(index))
            await env.reset(task=task(0, args={"what": "hard exit"}))
            with pytest.raises(WorkerError):
                await env.step("x")

    asyncio.run(play())


def test_judges_are_called_and_programs_run_only_where_that_is_allowed() -> None:
    async def play() -> None:
        async with made("judged-taskset", judges=True) as env:
            await env.reset(task=task(0))
            with pytest.raises(EnvError, match=r"judged-taskset.*(Connection|api_key|API)"):
                await env.step("roses")
        async with made("runtime-taskset") as env:
            await env.reset(task=task(0))
            with pytest.raises(EnvError, match="local_runtime=True"):
                await env.step("hello")
        async with made("runtime-taskset", local_runtime=True) as env:
            await env.reset(task=task(0))
            assert (await env.step("hello")).reward == 1.0
        async with made("debate-taskset", agent="pro") as env:
            await env.reset(task=task(0))
            with pytest.raises(EnvError, match="'con' is a model of its own"):
                await env.step("hello")

    asyncio.run(play())
