from __future__ import annotations

import asyncio

import pytest

from palaestra.agents.mixture import MixtureAgent
from palaestra.agents.rollout import Episode, rollout
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.errors import EnvError
from palaestra.trajectories.record import Trajectory


def play(agent: MixtureAgent, count: int = 40) -> list[Trajectory]:
    tasks = load_suite("alfworld:train")
    episodes = [Episode(task=tasks[i], id=str(i), group=str(i), seed=0) for i in range(count)]
    return asyncio.run(rollout(episodes, agent, make))


def test_an_expert_alone_solves_everything() -> None:
    assert all(each.success for each in play(MixtureAgent(expert=1.0, noisy=0.0)))


def test_some_are_experts_and_some_bunglers() -> None:
    plays = play(MixtureAgent())
    assert 0.4 < sum(each.success for each in plays) / len(plays) < 0.95
    assert sum(each.success for each in play(MixtureAgent(expert=0.0, noisy=0.0))) < 20


def test_it_plays_the_same_again() -> None:
    first, again = (play(MixtureAgent(), 10) for _ in range(2))
    assert [each.steps[-1].state_hash for each in first] == [each.steps[-1].state_hash for each in again]


def test_it_needs_an_expert() -> None:
    with pytest.raises(EnvError, match=r"no oracle\(\)"):
        MixtureAgent().session(seed=0)
