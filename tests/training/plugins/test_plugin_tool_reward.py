"""The reward for calling tools, on episodes: what counts as a call, how much it gives and until when."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.updates import episodes, learner, recipe, update

from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.curriculum import tool_call_weight
from palaestra.training.plugins.outcome_scale import OutcomeScale
from palaestra.training.plugins.tool_reward import Settings, ToolReward, tool_reward_of
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory

CHECK = settings(max_examples=20, deadline=None, derandomize=True)
OWN = "algorithm.settings.tool_reward"


def played(calls: list[int], invalid: int = 0, tools: int = 0, reward: float = 0.0) -> Batch:
    """Episodes of so many turns, of which the first ones are refused, and the last ones record a tool's outcome."""
    found = []
    for number, count in enumerate(calls):
        nodes, steps = [], []
        for turn in range(count):
            nodes += [Node(ids=[5]), Node(ids=[7], sampled=True, logprobs=[-1.0], entropies=[1.0])]
            step = StepRecord(observation="o", action="a", reward=0.0, completion=2 * turn + 1)
            step.invalid, step.tool = turn < invalid, {"ok": True} if turn >= count - tools else None
            steps.append(step)
        name = str(number // 2)
        one = Trajectory(id=str(number), env="", task=name, group=name, nodes=nodes, steps=steps, total_reward=reward)
        found.append(one)
    return build_rows(found).batch


def test_calls_are_actions_tool_outcomes_or_turns() -> None:
    batch = played([1, 3, 9, 12], invalid=1, tools=2)
    for count, expected in (
        ("actions", [0.0, 0.2, 0.8, 1.0]),
        ("calls", [0.1, 0.2, 0.2, 0.2]),
        ("turns", [0.1, 0.3, 0.9, 1.0]),
    ):
        found = ToolReward(Settings(count=count))(batch, Moment(0, 10))  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx(expected)


@CHECK
@given(calls=st.lists(st.integers(1, 30), min_size=2, max_size=6), step=st.integers(0, 12), decay=st.integers(1, 10))
def test_it_lies_between_0_and_mu_and_grows_with_the_calls(calls: list[int], step: int, decay: int) -> None:
    found = ToolReward(Settings(decay=decay))(played(sorted(calls)), Moment(step, 10))
    mu = tool_call_weight(step, decay)
    assert bool((found >= 0).all())
    assert bool((found <= mu).all())
    assert bool((found.diff() >= 0).all())
    assert step < decay or not found.any()


def test_the_worked_examples() -> None:
    """At t = 50 of 200."""
    moment, plain = Moment(50, 300), ToolReward(Settings())
    for calls, outcome, expected in ((3, 1.0, 1.2560660172), (1, -1.0, -0.9146446609), (11, 1.0, 1.8535533906)):
        batch = played([calls, calls], reward=outcome)
        assert float(batch.rewarded(plain(batch, moment)).reward[0]) == pytest.approx(expected, abs=1e-9)


def test_solved_tasks_give_no_reason_to_call_more_often() -> None:
    reward = ToolReward(Settings(solved_flag=True))
    assert reward.plain(played([1, 9], reward=1.0)).tolist() == [1.0, 1.0]
    assert reward.plain(played([1, 9], reward=-1.0)).tolist() == pytest.approx([0.1, 0.9])


def test_outcomes_are_scaled_and_penalties_are_not() -> None:
    batch = build_rows(episodes((1, 0, 0.5, 1)), invalid_penalty=0.25).batch
    penalised = batch.with_(reward=batch.reward - 0.25)
    assert penalised.rewarded(OutcomeScale(10.0)(batch, Moment(0, 1))).reward.tolist() == [9.75, -0.25, 4.75, 9.75]


def test_the_log_has_weight_and_reward() -> None:
    subject = learner("algorithm.name=grpo", "algorithm.plugins=[tool_reward]", f"{OWN}.decay=4", f"{OWN}.cap=0.2")
    for iteration in range(6):
        batch = build_rows(episodes(seed=iteration)).batch
        metrics = update(subject, batch, Moment(iteration, 6))[0].metrics
        assert metrics["tool_weight"] == tool_call_weight(iteration, 4)
        assert metrics["tool_reward"] == pytest.approx(float(ToolReward(Settings(cap=0.2)).plain(batch).mean()))


def test_it_reaches_the_advantages_while_it_lasts() -> None:
    batch = played([1, 5, 2, 2])
    name = ["algorithm.name=grpo", "algorithm.plugins=[tool_reward]", "algorithm.normalise=mean", f"{OWN}.decay=10"]
    for iteration, expected in ((0, [-0.2, 0.2, 0, 0]), (10, [0, 0, 0, 0])):
        algorithm = build_algorithm(recipe(*name))
        found = algorithm.prepare(algorithm.select(batch, Moment(iteration, 20)), Moment(iteration, 20)).advantage
        assert found is not None
        assert found.amax(1).add(found.amin(1)).tolist() == pytest.approx(expected)


def test_a_recipe_has_it_or_not() -> None:
    assert tool_reward_of(recipe("algorithm.name=grpo")) is None
    assert tool_reward_of(recipe("algorithm.name=spear", f"{OWN}.schedule=none")) is None
    found = tool_reward_of(recipe("algorithm.name=spear", f"{OWN}.decay=7"))
    assert found is not None
    assert found.settings.decay == 7
    assert torch.equal(found.plain(played([2, 2])), torch.full((2,), 0.2, dtype=torch.float64))
