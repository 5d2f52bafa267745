"""Problems of one turn: the contract, the reward, and what an agent may say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.math.env import AnswerEnv
from palaestra.envs.tasks import Task
from palaestra.errors import ConfigError, DataError, EnvError

ID = "math/Answer-v0"


SIX_TIMES_SEVEN = {"problem": "6 * 7?", "answer": "42", "judge": "exact"}


def task(**params: Any) -> Task:
    return Task(env=ID, name="t", params={**SIX_TIMES_SEVEN, **params})


def answered(action: Any, **params: Any) -> Any:
    async def play() -> Any:
        async with make(ID) as env:
            await env.reset(task=task(**params))
            return await env.step(action)

    return asyncio.run(play())


def test_it_keeps_the_contract() -> None:
    report = check_env(ID, seeds=(0, 1), actions=lambda info, generator: generator.choice(("7", "hm", r"\boxed{3}")))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_an_episode() -> None:
    async def play() -> None:
        async with make(ID) as env:
            first = await env.reset(task=task(kind="times"))
            assert first.observation == "6 * 7?\nPut the final answer in \\boxed{}."
            assert first.info == {"success": False, "invalid": False, "task_type": "times", "score": 0.0}
            assert await env.oracle() == r"\boxed{42}"
            assert await env.render() == "6 * 7?"
            sibling = (await env.fork(1))[0]
            step = await env.step(r"6 * 7 = \boxed{42}.")
            assert step == ("Right.", 1.0, True, False, {**first.info, "success": True, "score": 1.0})
            assert (await sibling.step(r"\boxed{41}")).reward == 0
            await sibling.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    "action",
    [
        "42",
        "",
        r"\boxed{}",
        r"\boxed{42",
        "\\boxed{4\u200b2}",
        "\ud800",
        "x" * 2_000_000,
        r"\boxed{" * 200_000,
        42,
        None,
    ],
)
def test_no_answer_is_invalid(action: Any) -> None:
    step = answered(action)
    assert (step.reward, step.terminated, step.info["invalid"]) == (0.0, True, True)


def test_messages_bare_answers_and_choices() -> None:
    assert answered({"role": "assistant", "content": r"\boxed{42}"}).reward == 1
    assert answered("42", bare=True).reward == 1
    assert answered(r"40? \boxed{42}", bare=True).reward == 1
    assert answered("about 42", bare=True).reward == 0
    chosen = answered("42", choices=["41", "42"])
    assert chosen.reward == 1
    assert chosen.info["admissible_commands"] == ["41", "42"]
    assert answered("40", choices=["41", "42"]).info["invalid"]


def test_a_judge_decides_where_equality_does_not() -> None:
    pytest.importorskip("math_verify", reason="not installed: pip install 'palaestra[math]'")
    assert answered(r"\boxed{40 + 2}").reward == 0
    assert answered(r"\boxed{40 + 2}", judge="math-verify").reward == 1
    step = answered(r"\boxed{9^{9^{9^9}}}", judge="math-verify")
    assert step.reward == 0
    assert step.info["judge_error"] == "timeout"


@pytest.mark.parametrize(
    ("question", "answer", "reward"),
    [
        (r"What is $17 \cdot 3$?", r"17\cdot 3", 0),
        (r"What is $17 \cdot 3$?", r"51 \text{ apples}", 1),
        (r"What is $17 \cdot 3$?", "x=51", 1),
        (r"Simplify $\sqrt{2601}$.", r"\sqrt{2601}", 0),
        ("Is $x$ 51, or (A) 17, (B) 51?", "51", 1),
    ],
)
def test_repeating_the_problem_does_not_solve_it(question: str, answer: str, reward: float) -> None:
    pytest.importorskip("math_verify", reason="not installed: pip install 'palaestra[math]'")
    step = answered(rf"\boxed{{{answer}}}", problem=question, answer="51", judge="math-verify")
    assert step.reward == reward
    assert ("judge_error" in step.info) == (not reward)


@pytest.mark.parametrize(
    "params",
    [{"answer": ""}, {"problem": 3}, {"judge": "me"}, {"bare": "yes"}, {"max_turns": 0}, {"choices": "42"}],
)
def test_params_that_are_no_problem_are_refused(params: dict[str, Any]) -> None:
    async def play() -> None:
        env = AnswerEnv()
        with pytest.raises(DataError, match="no problem of the suite math"):
            await env.reset(task=task(**params))
        with pytest.raises(EnvError, match="reset"):
            await env.step("42")

    asyncio.run(play())


@pytest.mark.parametrize("difficulty", [0, 9, "2", True])
def test_difficulties_have_a_range(difficulty: Any) -> None:
    with pytest.raises(ConfigError, match="difficulty"):
        AnswerEnv(difficulty)
