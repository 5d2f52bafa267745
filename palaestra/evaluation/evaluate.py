"""Evaluation: an agent plays the tasks of a suite, once each, and is summarised with intervals.

With a store, every finished episode is on disk before the next one ends, and an evaluation that was stopped goes on
where it was: episode `i` is always the same task with the same seed, whoever finished first. Each is stored with the
weights, settings and limits it was played with, so that no result ever mixes two agents.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from palaestra.agents.agent import Agent
from palaestra.agents.rollout import EnvMaker, Episode, RolloutLimits, rollout
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import ConfigError, DataError
from palaestra.evaluation.conditions import KEY, conditions_of, difference
from palaestra.evaluation.result import EvalResult
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories

Progress = Callable[[int, int, Trajectory | None], None]
"""Called as `progress(done, total, latest)`: at the start, with what need not be played, then after each episode."""

Rollout = Callable[..., Awaitable[Sequence[Trajectory]]]
"""Plays episodes as `palaestra.agents.rollout.rollout` does, with the same arguments, wherever that is."""

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
    play: Rollout = rollout,
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
        play: who plays the episodes, where that is not this process.

    Raises:
        ConfigError: there is nothing to play, or the store holds an earlier evaluation and `resume` is off.
        DataError: the store is corrupt, or holds another evaluation than this one; the message says what differs.
        PalaestraError: the store cannot be written.
    """
    began = time.perf_counter()
    name = name or _reference(suite)
    plan = plan_episodes(suite, len(suite) if episodes is None else episodes, name=name, seed=seed)
    limits = limits or RolloutLimits()
    limits = limits if concurrency is None else replace(limits, concurrency=concurrency)
    conditions = conditions_of(agent, limits)
    done = _finished(Path(store), plan, conditions, temperature, resume) if store is not None else {}
    with ExitStack() as stack:
        writer = stack.enter_context(TrajectoryWriter(store)) if store is not None else None
        noted = {KEY: conditions} if temperature is None else {KEY: conditions, "temperature": temperature}
        ledger = _Ledger(done, len(plan), noted, writer, progress)
        left = [episode for episode in plan if episode.id not in done]
        await play(left, agent, make_env or _registry_make(), limits, on_done=ledger.enter)
    seconds = time.perf_counter() - began
    played = [done[episode.id] for episode in plan]
    result = EvalResult.of(played, suite=name, agent=agent.name, seconds=seconds, temperature=temperature)
    cut = {key: conditions[key] for key in ("top_k", "top_p") if key in conditions}
    return msgspec.structs.replace(result, **cut)


class _Ledger:
    """Takes every episode down as soon as it is finished: on disk, in `done`, and for whoever watches."""

    def __init__(
        self,
        done: dict[str, Trajectory],
        total: int,
        noted: Mapping[str, Any],
        writer: TrajectoryWriter | None,
        progress: Progress | None,
    ) -> None:
        self.done, self.total, self.noted = done, total, noted
        self.writer, self.progress = writer, progress
        self._tell(None)

    def enter(self, trajectory: Trajectory) -> None:
        trajectory.meta |= self.noted
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
    path: Path, plan: Sequence[Episode], conditions: Mapping[str, Any], temperature: float | None, resume: bool
) -> dict[str, Trajectory]:
    """The episodes of the plan that the store has, by id."""
    if not path.exists():
        return {}
    stored = list(read_trajectories(path))
    if stored and not resume:
        raise ConfigError(f"{path} holds an earlier evaluation; resume it, remove it, or name another file")
    wanted = {episode.id: episode for episode in plan}
    done = {}
    for trajectory in stored:
        if trajectory.id not in wanted:
            continue  # an earlier call asked for more episodes
        if differs := difference(trajectory, wanted[trajectory.id], conditions, temperature):
            raise DataError(f"{path} holds another evaluation: {trajectory.id} {differs}; name another file")
        if trajectory.status in _FINISHED:
            done[trajectory.id] = trajectory
    return done


def _reference(suite: TaskSuite | Sequence[Task]) -> str:
    return f"{suite.name}:{suite.split}" if isinstance(suite, TaskSuite) else "tasks"


def _registry_make() -> EnvMaker:
    from palaestra.envs.registry import make

    return make
