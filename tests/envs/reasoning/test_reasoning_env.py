"""The environment with the real package: questions, scores, hostile answers, judges that die."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from palaestra.envs.core import Reset, Step
from palaestra.envs.reasoning import bench
from palaestra.envs.reasoning import env as env_module
from palaestra.envs.reasoning.env import ReasoningEnv, answer_of
from palaestra.envs.reasoning.generators import OFFERED
from palaestra.envs.reasoning.judge import Wanted
from palaestra.envs.reasoning.questions import split_of
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import ConfigError, DataError, DeadlineError, EnvError, UnknownNameError

pytest.importorskip("reasoning_gym", reason="needs the extra reasoning")

SLOW = {"knight_swap", "sokoban", "intermediate_integration", "zebra_puzzles", "futoshiki", "quantum_lock"}
"""A second and more for a question."""
BARE = {"boxnet", "rush_hour"}
"""No stored answer."""


def play(task: Task | None, *actions: Any, seed: int | None = None) -> tuple[Reset[str], list[Step[str]]]:
    """An episode for each action."""

    async def run() -> tuple[Reset[str], list[Step[str]]]:
        async with ReasoningEnv() as env:
            steps = []
            for action in actions:
                first = await env.reset(seed=seed, task=task)
                steps.append(await env.step(await env.oracle() if action == "ORACLE" else action))
            return first, steps

    return asyncio.run(run())


def test_oracles_solve_and_questions_are_the_same_in_another_process_and_order() -> None:
    tasks = [load_suite(f"reasoning/{name}:train")[1] for name in OFFERED if name not in SLOW | BARE]
    asked = {}
    for task in tasks:
        first, (solved, empty) = play(task, "ORACLE", "")
        assert (solved.reward, solved.terminated, solved.info["success"]) == (1.0, True, True), task.name
        assert (empty.reward, empty.info["invalid"], empty.info["reason"]) == (0.0, True, "there is no answer")
        assert solved.info["task_type"] == task.kind
        asked[task.name] = first.observation
    bench.close()
    assert {task.name: play(task, "")[0].observation for task in reversed(tasks)} == asked


@pytest.mark.slow
@pytest.mark.parametrize("generator", sorted(SLOW))
def test_slow_generators_too(generator: str) -> None:
    _, (solved,) = play(load_suite(f"reasoning/{generator}:train")[0], "ORACLE")
    assert solved.reward == 1.0


@pytest.mark.parametrize("generator", sorted(BARE))
def test_generators_without_answers_have_no_oracle(generator: str) -> None:
    with pytest.raises(EnvError, match="stores no answers"):
        play(load_suite(f"reasoning/{generator}:test")[0], "ORACLE")


def test_answers_stand_in_tags_or_alone() -> None:
    assert answer_of("I think <answer> 12\n13 </answer> is it") == "12\n13"
    assert answer_of("<answer>1</answer> no: <answer>2</answer>") == "2"
    assert answer_of(" 12 \n") == "12"
    assert answer_of("<answer>12") == "<answer>12"
    assert answer_of("12</answer>") == "12</answer>"
    assert answer_of({"role": "assistant"}) == ""
    assert answer_of("\ud800") == "?"


def test_no_question_is_in_two_splits_of_a_small_generator() -> None:
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    asked: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        suite = load_suite(f"reasoning/chain_sum:{split}", **params)
        asked[split] = {play(suite[place], "")[0].observation for place in range(60)}
    assert all(len(questions) > 20 for questions in asked.values())
    assert not asked["train"] & asked["validation"]
    assert not asked["train"] & asked["test"]
    assert not asked["validation"] & asked["test"]


def test_difficulty_is_the_level_of_the_packages_curriculum() -> None:
    easy, hard = (load_suite("reasoning/chain_sum:train", difficulty=level)[0] for level in (0, 3))
    assert easy.name == "chain_sum-difficulty=0-0"
    lengths = [len(play(task, "")[0].observation) for task in (easy, hard)]
    assert lengths[0] < lengths[1]
    assert play(hard, "ORACLE")[1][0].reward == 1.0


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"difficulty": 99}, "difficulty of countdown is a whole number from 0 to 4, not 99"),
        ({"difficulty": "hard"}, "whole number"),
        ({"min_numbers": 0}, "min_numbers must be greater than 1"),
        ({"min_numbers": "many"}, "not supported"),
        ({"numbers": 4}, "no parameter 'numbers'; it has difficulty, max_numbers"),
        ({"seed": 4}, "no parameter 'seed'"),
        ({"operators": {1}}, "invalid operator specified"),
        ({"operators": object()}, "JSON values"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_in_the_packages_words(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_suite("reasoning/countdown:train", **params)
    with pytest.raises(ConfigError, match="no curriculum for acre"):
        load_suite("reasoning/acre:train", difficulty=1)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"generator": "chain_sum", "split": "dev", "index": 0}, UnknownNameError),
        ({"generator": "chain_sums", "split": "test", "index": 0}, UnknownNameError),
        ({"generator": "coin_flip", "split": "test", "index": 0}, ConfigError),
        ({"generator": "chain_sum", "split": "test", "index": 1000}, DataError),
        ({"generator": "chain_sum", "split": "test", "index": True}, DataError),
        ({"generator": "chain_sum", "split": "test", "index": 0, "difficulty": "1"}, DataError),
        ({"generator": "chain_sum", "split": "test", "index": 0, "config": [1]}, DataError),
        ({}, UnknownNameError),
    ],
)
def test_tasks_that_describe_no_question_are_refused(params: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        play(Task(env="reasoning/Gym-v0", name="x", params=params), "")


def test_hostile_answers_earn_nothing_and_the_next_is_judged() -> None:
    task = load_suite("reasoning/countdown:test")[0]
    hostile = [
        "9**9**9**9",
        "(" * 300,
        "(" * 60_000,
        "9" * 1_000_000,
        "\x00\x1b[2J",
        "٣+٤",
        "<answer>" * 100_000,
        12,
        None,
    ]
    _, steps = play(task, *hostile, "__import__('os').abort()", "\ud800", "ORACLE")
    assert [step.reward > 0.05 for step in steps] == [False] * 11 + [True]
    assert all(step.terminated for step in steps)
    assert "longer" in steps[3].info["reason"]


def test_an_answer_that_takes_for_ever_is_ended_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_suite("reasoning/polynomial_multiplication:test")[0]
    monkeypatch.setattr(env_module, "JUDGING_SECONDS", 1.0)
    _, (hung, solved) = play(task, "(x+1)**9999999 - 7**(7**9)", "ORACLE")
    assert (hung.reward, hung.info["invalid"]) == (0.0, True)
    assert "more than 1 s" in hung.info["reason"]
    assert solved.reward == 1.0


def test_a_judge_that_was_killed_is_replaced() -> None:
    task = load_suite("reasoning/chain_sum:test")[0]
    first, _ = play(task, "")
    for judge in bench._idle:
        os.kill(judge._process.pid, signal.SIGKILL)
    again, (solved,) = play(task, "ORACLE")
    assert (again.observation, solved.reward) == (first.observation, 1.0)


def test_a_question_that_takes_too_long_is_an_error() -> None:
    with pytest.raises(DeadlineError, match="knight_swap took more than"):
        bench.ask(Wanted("knight_swap", None, {}, "train", 7, seconds=0.02))


def test_a_config_with_too_few_questions_is_an_error() -> None:
    params = {"min_n": 7, "max_n": 7}
    question = "How many 1 bits are there in the binary representation of the number 7?"
    own = split_of(question)
    assert play(load_suite(f"reasoning/count_bits:{own}", **params)[0], "")[0].observation == question
    other = "test" if own == "train" else "train"
    with pytest.raises(EnvError, match="too few"):
        play(load_suite(f"reasoning/count_bits:{other}", **params)[0], "")


def test_a_seed_alone_draws_a_training_question() -> None:
    questions = [play(None, "", seed=seed)[0].observation for seed in (1, 1, 2)]
    assert questions[0] == questions[1] != questions[2]


def test_out_of_order() -> None:
    async def run() -> None:
        async with ReasoningEnv() as env:
            for call in (env.step("1"), env.oracle()):
                with pytest.raises(EnvError, match="reset"):
                    await call
            await env.reset(seed=1)
            await env.step("1")
            with pytest.raises(EnvError, match="reset"):
                await env.step("1")

    asyncio.run(run())
