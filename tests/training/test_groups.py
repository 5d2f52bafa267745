"""Groups whose members started from different states are refused."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from support.levers import ENV, Levers, levers_recipe, register_levers, save_tiny_model

from palaestra.envs.core import Reset
from palaestra.envs.registry import register
from palaestra.errors import TrainingError
from palaestra.training.groups import require_equal_starts
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train
from palaestra.trajectories.record import Trajectory


class Weather(Levers):
    """Every third episode begins on a rainy day, whatever the seed."""

    days = itertools.count()

    async def reset(self, **kwargs: Any) -> Reset[str]:
        first = await super().reset(**kwargs)
        return first if next(self.days) % 3 else first._replace(observation="It rains.")


def member(id: str, start: str, group: str = "0/0") -> Trajectory:
    return Trajectory(id=id, env="quiz/Capitals-v0", task="peru", group=group, start_hash=start)


def test_equal_starts_pass() -> None:
    require_equal_starts([member("0/0/0", "a"), member("0/1/0", "b", "0/1"), member("0/0/1", "a")])
    require_equal_starts([member("0/0/0", "a", ""), member("0/0/1", "b", "")])
    require_equal_starts([member("0/0/0", "a"), member("0/0/1", "")])


def test_unequal_starts_are_refused_by_name() -> None:
    with pytest.raises(TrainingError) as refused:
        require_equal_starts([member("0/0/0", "a"), member("0/0/1", "a"), member("0/0/2", "b")])
    message = str(refused.value)
    assert "quiz/Capitals-v0: episodes 0/0/0 and 0/0/2 of group '0/0' play task 'peru'" in message
    assert message.endswith("palaestra check quiz/Capitals-v0")


def test_the_trainer_stops_before_it_learns_from_them(tmp_path: Path) -> None:
    register_levers()
    register(ENV, Weather, override=True)
    save_tiny_model(tmp_path / "base")
    with pytest.raises(TrainingError, match="start differently, so their returns do not compare"):
        train(levers_recipe(tmp_path, "evaluation.every=0", "evaluation.test_episodes=0"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert not [row for row in read_metrics(metrics) if row["kind"] == "train"]


def test_groups_of_one_need_no_equal_starts(tmp_path: Path) -> None:
    register_levers()
    register(ENV, Weather, override=True)
    save_tiny_model(tmp_path / "base")
    few = [
        "rollout.groups=4",
        "rollout.group_size=1",
        "algorithm.singleton=raw",
        "budget.iterations=1",
        "evaluation.every=0",
    ]
    assert train(levers_recipe(tmp_path, *few, "evaluation.test_episodes=0")).stopped == "iterations"
