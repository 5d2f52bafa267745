"""Trees of rollouts on real environments: a branch is an episode like any other, which a replay confirms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.envs import timeless
from support.trees import UncertainAgent, branches, group

from palaestra.agents.branching import BranchRule
from palaestra.agents.rollout import RolloutLimits, rollout
from palaestra.agents.tree import TreePlanner
from palaestra.envs import registry
from palaestra.envs.registry import make, register
from palaestra.envs.tasks import Task, load_suite
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.replay import replay

PLANNER = TreePlanner(BranchRule(alpha=0.6), begin=2)


def play(task: Task, placement: str) -> list[Trajectory]:
    return asyncio.run(
        rollout(
            group(5, task=task),
            UncertainAgent(),
            lambda id: make(id, placement=placement),
            RolloutLimits(max_turns=8),
            planner=PLANNER,
        )
    )


def assert_replayed(played: list[Trajectory]) -> None:
    """Every rollout, branch or not, from a reset: the same hash chain."""
    assert [(t.status, t.error) for t in played] == [("ok", "")] * 5
    assert branches(played)
    assert not any("failed_forks" in t.meta for t in played)
    for trajectory in played:
        found = asyncio.run(replay(trajectory))
        assert (found.result, found.reason) == ("identical", "")


@pytest.mark.parametrize("placement", ["inline", "thread", "process"])
def test_household_tasks(placement: str) -> None:
    task = load_suite("alfworld/small:train")[3]
    played = play(task, placement)
    assert_replayed(played)
    assert timeless(played) == timeless(play(task, "inline")), "where they are played changes nothing"


def test_babyai() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'palaestra[babyai]'")
    assert_replayed(play(load_suite("babyai:train")[0], "inline"))


def test_textworld(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("textworld", reason="not installed: pip install 'palaestra[textworld]'")
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))
    task = load_suite("textworld:train")[0]
    assert_replayed(play(task, make(task.env).spec.placement.kind))


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    register("test/CartPole-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
    return Task(env="test/CartPole-v0", name="cart", seed=3)


def test_gymnasium_by_replay(lake: Task) -> None:
    """An environment of gymnasium's own has no snapshots: its forks play the episode again."""
    assert_replayed(play(lake, "inline"))


def test_places_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers for groups of five: at most three paths of a group are alive, and none waits for ever."""
    from msgspec.structs import replace

    known = registry.spec("alfworld/Household-v0")
    limited = replace(known.placement, kind="process", concurrency=3)
    monkeypatch.setitem(registry._SPECS, known.id, replace(known, placement=limited))
    suite = load_suite("alfworld/small:train")
    episodes = [e for n in range(3) for e in group(5, task=suite[n], name=f"0/{n}")]
    work = rollout(episodes, UncertainAgent(), make, RolloutLimits(max_turns=6), planner=PLANNER)
    played = asyncio.run(asyncio.wait_for(work, 60))
    assert [t.status for t in played] == ["ok"] * 15
    assert branches(played)
    assert not any("failed_forks" in t.meta for t in played)
