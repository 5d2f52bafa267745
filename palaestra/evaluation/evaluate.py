"""Evaluation: an agent plays the tasks of a suite, once each, and is summarised with intervals.

With a store, every finished episode is on disk before the next one ends, and an evaluation that was stopped goes on
where it was: episode `i` is always the same task with the same seed, whoever finished first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from palaestra.agents.agent import Agent
from palaestra.agents.rollout import EnvMaker, Episode, RolloutLimits, rollout
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import ConfigError, DataError
from palaestra.evaluation.result import EvalResult
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories

Progress = Callable[[int, int, Trajectory | None], None]
"""Called as `progress(done, total, latest)`: at the start, with what need not be played, then after each episode."""

_FINISHED = ("ok", "overflow")
"""Statuses that stand; an episode that something outside cut off is played again on resume."""


async def evaluate(
    suite: TaskSuite | Sequence[Task],
    agent: Agent,
    *,
    episodes: int | None = None,
    name: str | None = None,
    seed: int = 0,
    limits: RolloutLimits | None = None,
    concurrency: int | None = None,
    temperature: float | None = None,
    store: str | os.PathLike[str] | None = None,
    resume: bool = True,
    make_env: EnvMaker | None = None,
    progress: Progress | None = None,
) -> EvalResult:
    """Play a suite and summarise.

    Args:
        suite: the tasks. Episode `i` is task `i`; where there are more episodes than tasks they begin again, with other
            draws of the agent.
        agent: who plays.
        episodes: how many; all tasks once if not given.
        name: what the result calls the suite; its reference if not given.
        seed: of what the agent draws.
        limits: of the rollout driver.
        concurrency: episodes at the same time, in place of that in `limits`.
        temperature: noted in the result and the store; set it on the agent.
        store: trajectory file that gets every episode.
        resume: take finished episodes from the store. Without it a store that holds any is refused.
        make_env: makes an environment from its id; the registry's `make` if not given.
        progress: told of every episode.

    Raises:
        ConfigError: there is nothing to play, or the store holds an earlier evaluation and `resume` is off.
        DataError: the store is corrupt, or holds another evaluation than this one.
        PalaestraError: the store cannot be written.
    """
    began = time.perf_counter()
    name = name or _reference(suite)
    plan = plan_episodes(suite, len(suite) if episodes is None else episodes, name=name, seed=seed)
    limits = limits or RolloutLimits()
    limits = limits if concurrency is None else replace(limits, concurrency=concurrency)
    done = _finished(Path(store), plan, agent.name, temperature, resume) if store is not None else {}
    with ExitStack() as stack:
        writer = stack.enter_context(TrajectoryWriter(store)) if store is not None else None
        ledger = _Ledger(done, len(plan), temperature, writer, progress)
        left = [episode for episode in plan if episode.id not in done]
        await rollout(left, agent, make_env or _registry_make(), limits, on_done=ledger.enter)
    seconds = time.perf_counter() - began
    played = [done[episode.id] for episode in plan]
    return EvalResult.of(played, suite=name, agent=agent.name, seconds=seconds, temperature=temperature)


class _Ledger:
    """Takes every episode down as soon as it is finished: on disk, in `done`, and for whoever watches."""

    def __init__(
        self,
        done: dict[str, Trajectory],
        total: int,
        temperature: float | None,
        writer: TrajectoryWriter | None,
        progress: Progress | None,
    ) -> None:
        self.done, self.total, self.temperature = done, total, temperature
        self.writer, self.progress = writer, progress
        self._tell(None)

    def enter(self, trajectory: Trajectory) -> None:
        if self.temperature is not None:
            trajectory.meta["temperature"] = self.temperature
        if self.writer is not None:
            self.writer.append(trajectory)
        self.done[trajectory.id] = trajectory
        self._tell(trajectory)

    def _tell(self, latest: Trajectory | None) -> None:
        if self.progress:
            self.progress(len(self.done), self.total, latest)


def plan_episodes(suite: Sequence[Task], count: int, *, name: str, seed: int = 0) -> list[Episode]:
    """The episodes of an evaluation: the same for the same arguments.

    Raises:
        ConfigError: the suite is empty, or `count` is less than 1.
    """
    if not len(suite):
        raise ConfigError(f"the suite {name} has no tasks")
    if count < 1:
        raise ConfigError(f"an evaluation needs at least one episode, not {count}")
    tasks = [suite[i] for i in range(min(count, len(suite)))]
    return [
        Episode(task=tasks[i % len(tasks)], id=f"{name}/{i}", group=tasks[i % len(tasks)].name, seed=seed)
        for i in range(count)
    ]


def _finished(
    path: Path, plan: Sequence[Episode], agent: str, temperature: float | None, resume: bool
) -> dict[str, Trajectory]:
    """The episodes of the plan that the store has, by id."""
    if not path.exists():
        return {}
    stored = list(read_trajectories(path))
    if stored and not resume:
        raise ConfigError(f"{path} holds an earlier evaluation; resume it, remove it, or name another file")
    wanted = {e.id: {"agent": agent, "task": e.task.name, "seed": e.seed, "temperature": temperature} for e in plan}
    done = {}
    for trajectory in stored:
        if trajectory.id not in wanted:
            continue  # an earlier call asked for more episodes
        _check_same(path, trajectory, wanted[trajectory.id])
        if trajectory.status in _FINISHED:
            done[trajectory.id] = trajectory
    return done


def _check_same(path: Path, trajectory: Trajectory, wanted: dict[str, Any]) -> None:
    stored = {
        "agent": trajectory.agent,
        "task": trajectory.task,
        "seed": trajectory.seed,
        "temperature": trajectory.meta.get("temperature"),
    }
    for key, value in wanted.items():
        if stored[key] != value:
            raise DataError(
                f"{path} holds another evaluation: {trajectory.id} was played with {key} {stored[key]!r}, "
                f"not {value!r}; name another file"
            )


def _reference(suite: TaskSuite | Sequence[Task]) -> str:
    return f"{suite.name}:{suite.split}" if isinstance(suite, TaskSuite) else "tasks"


def _registry_make() -> EnvMaker:
    from palaestra.envs.registry import make

    return make
