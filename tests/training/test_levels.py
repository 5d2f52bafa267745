"""Training by a curriculum: which tasks come, what is learned of them, and that a killed run ends the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.envs import timeless
from support.levers import ENV, levers_recipe, register_levers, save_tiny_model

from palaestra.config import Recipe, parse_recipe
from palaestra.envs.curriculum import level_of
from palaestra.envs.tasks import Task, TaskSuite, register_suite
from palaestra.errors import ConfigError
from palaestra.training.checkpoint import load_latest
from palaestra.training.levels import curriculum_parts, curriculum_suite
from palaestra.training.metrics import read_metrics
from palaestra.training.run import check_recipe, train
from palaestra.training.sampling import TaskSampler
from palaestra.training.seams import Moment, Parts
from palaestra.trajectories.store import read_trajectories

LEVELS = (
    "tasks.curriculum.levels=[{suite: 'steps:train', params: {difficulty: 0}}, "
    "{suite: 'steps:train', params: {difficulty: 1}}]"
)
QUICK = ["tasks.curriculum.raise_at=0.05", "tasks.curriculum.lower_at=0.0", "tasks.curriculum.least=8"]
TIMES = ("elapsed", "rollout_seconds", "update_seconds", "seconds", "rss_bytes")


class Killed(BaseException):
    """Stands for a death of the process."""


def register_steps() -> None:
    """The suite `steps:SPLIT`, with a difficulty that only shows in the names."""
    register_levers()

    def load(split: str, level: str | None = None, *, difficulty: int = 0) -> TaskSuite:
        def build(index: int) -> Task:
            return Task(env=ENV, name=f"{difficulty}-{index}", split=split, seed=100 * difficulty + index)

        return TaskSuite("steps", split, 10 + difficulty, build)

    register_suite("steps", load)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    register_steps()
    save_tiny_model(tmp_path / "base")
    return tmp_path


def recipe(folder: Path, *overrides: str) -> Recipe:
    return levers_recipe(folder, "evaluation.test_episodes=0", "evaluation.every=0", LEVELS, *QUICK, *overrides)


def places(recipe: Recipe, level: int, iteration: int) -> list[int]:
    parts: Parts = curriculum_parts(recipe)["tasks.curriculum"]
    parts.trackers["curriculum"].load_state_dict({"level": level, "results": [[], []]})
    sampler = TaskSampler(curriculum_suite(recipe), recipe.rollout, recipe.seed)
    first = sampler.round(Moment(iteration, 9), parts)
    more = sampler.round(Moment(iteration, 9), parts, groups=3, taken=first.places)
    assert not set(first.places) & set(more.places)
    return list(first.places)


def test_a_level_is_walked_through_before_a_task_comes_again(folder: Path) -> None:
    own = recipe(folder, "rollout.groups=5", "tasks.curriculum.earlier=0")
    assert sorted(places(own, 0, 0) + places(own, 0, 1)) == list(range(10))
    assert all(10 <= place < 21 for place in places(own, 1, 0))
    assert places(own, 0, 0) == places(own, 0, 0) != places(own, 0, 2)


def test_earlier_levels_have_their_part(folder: Path) -> None:
    own = recipe(folder, "rollout.groups=5", "tasks.curriculum.earlier=0.4")
    assert [sum(place < 10 for place in places(own, 1, iteration)) for iteration in range(4)] == [2, 2, 2, 2]
    assert all(place < 10 for place in places(own, 0, 0))


def outcome(directory: Path) -> dict[str, Any]:
    checkpoint = load_latest(directory / "checkpoints")
    assert checkpoint is not None
    return {
        "model": {name: value.numpy().tobytes() for name, value in checkpoint.model.items()},
        "algorithm": checkpoint.state["algorithm"],
        "metrics": [
            {key: value for key, value in row.items() if key not in TIMES}
            for row in read_metrics(directory / "metrics.jsonl")
        ],
        "trajectories": timeless(list(read_trajectories(directory / "trajectories" / "train.ptj"))),
        "curriculum": json.loads((directory / "summary.json").read_text())["curriculum"],
    }


@pytest.mark.parametrize("moment", [1, 3, 4])
def test_a_killed_run_goes_on_to_the_same_result(folder: Path, moment: int) -> None:
    whole = outcome(train(recipe(folder, f"out={folder / 'whole'}")).directory)
    left = moment

    def die(row: Mapping[str, Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    with pytest.raises(Killed):
        train(recipe(folder), progress=die)
    assert outcome(train(recipe(folder), resume=True).directory) == whole
    levels = [row["level"] for row in whole["metrics"]]
    assert levels[0] == 0.0
    assert levels[-1] == whole["curriculum"]["level"] == 1
    assert all({"success_level_0", "success_level_1"} <= set(row) for row in whole["metrics"])
    played = [level_of(episode.task) for episode in whole["trajectories"]]
    assert set(played[: 3 * 4]) == {0}
    assert set(played[-3 * 4 :]) <= {0, 1}
    assert 1 in played


def test_recipes_that_cannot_be_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.train, or levels"):
        check_recipe(parse_recipe("name: x\ntasks: {}\n"))
    with pytest.raises(ConfigError, match="lower_at"):
        check_recipe(recipe(folder, "tasks.curriculum.lower_at=0.9"))
    with pytest.raises(ConfigError, match="spo_tracker and tasks.curriculum each bring their own chooser"):
        check_recipe(recipe(folder, "algorithm.name=spo"))
    with pytest.raises(ConfigError, match="at least two"):
        check_recipe(recipe(folder, "tasks.curriculum.levels=[{suite: 'steps:train'}]"))
    with pytest.raises(ConfigError, match="suit"):
        recipe(folder, "tasks.curriculum.levels=[{suit: 'steps:train'}]")
