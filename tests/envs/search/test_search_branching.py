"""AEPO on questions with tools: rollouts branch after tool results, and are paid by its equation 10."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.trees import UncertainAgent, branches, group

pytest.importorskip("tantivy", reason="tantivy is not installed: pip install 'palaestra[search]'")

from palaestra.agents.branching import BranchRule
from palaestra.agents.rollout import RolloutLimits, rollout
from palaestra.agents.tree import TreePlanner
from palaestra.config import parse_recipe
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.replay import replay
from palaestra.trajectories.store import read_trajectories

PAID = {"reward": "aepo", "max_turns": 5}


def assert_fits(trajectory: Trajectory) -> None:
    """Whoever branched did so behind the result of a tool, and everybody is paid as the equation says."""
    assert (trajectory.status, trajectory.error) == ("ok", "")
    if trajectory.branch_of:
        last = trajectory.steps[trajectory.branched_at - 1]
        assert last.tool is not None
        assert last.tool["name"] in ("search", "read")
    answered = trajectory.steps[-1].tool is not None and trajectory.steps[-1].tool["name"] == "answer"
    assert (trajectory.total_reward == -1) == (not answered)
    assert -1 <= trajectory.total_reward <= 1.1
    assert trajectory.success == (trajectory.total_reward >= 1)
    found = asyncio.run(replay(trajectory))
    assert (found.result, found.reason) == ("identical", "")


@pytest.mark.parametrize("action", ["message", "text"])
def test_a_tree_of_rollouts(action: str) -> None:
    planner = TreePlanner(BranchRule(alpha=0.6), begin=2)
    played: list[Trajectory] = []
    for number, task in enumerate(load_suite("search/hard:train", action=action, offer=12, **PAID)[:4]):
        episodes = group(8, task=task, name=f"0/{number}", seed=number)
        limits = RolloutLimits(max_turns=8)
        played += asyncio.run(rollout(episodes, UncertainAgent(), make, limits, planner=planner))
    assert len(branches(played)) >= 8
    for trajectory in played:
        assert_fits(trajectory)


RECIPE = """
    name: search-aepo
    tasks:
      train: search/easy:train
      params: {action: text, reward: aepo, offer: 12, results: 2, snippet: 40, max_turns: 4}
      max_turns: 4
    model: {threads: 1}
    agent: {action: choice}
    rollout: {groups: 1, group_size: 6}
    algorithm: {name: aepo, settings: {aepo: {branching: true}, branching: {begin: 2, alpha: 0.9}}}
    budget: {iterations: 2}
    evaluation: {every: 0, test_episodes: 0}
"""


@pytest.mark.integration
def test_the_shipped_model_trains_on_a_tree(tmp_path: Path) -> None:
    result = train(parse_recipe(RECIPE, [f"out={tmp_path / 'run'}"]))
    rows = list(read_metrics(result.directory / "metrics.jsonl"))
    assert [row["kind"] for row in rows] == ["train", "train"]
    assert all(row["statuses"] == {"ok": 6} for row in rows)
    assert all(row["branches"] >= 1 for row in rows)
    played = list(read_trajectories(result.directory / "trajectories" / "train.ptj"))
    assert len(played) == 12
    for trajectory in played:
        assert_fits(trajectory)
