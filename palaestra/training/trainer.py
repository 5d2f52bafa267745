"""The trainer: collect, learn, repeat.

    tasks → episodes → rows → update → metrics
              ↑                  │
              └──── weights ─────┘      evaluation and checkpoint every few iterations

Whether episodes are played before an update or also while it is computed is the collector's business. An iteration
counts once its update and its metrics are done; in between nothing can interrupt it. Playing and evaluating change no
state, so at every moment at which training can be stopped the state is that of the last complete iteration.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from palaestra.config import Recipe
from palaestra.envs.tasks import TaskSuite
from palaestra.errors import TrainingError
from palaestra.evaluation.evaluate import Progress as EpisodeProgress
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import Checkpoint, list_checkpoints, load_weights, save_checkpoint
from palaestra.training.collector import Collector, Played
from palaestra.training.learner import Learner, Update
from palaestra.training.lora import own_weights
from palaestra.training.metrics import MetricsWriter
from palaestra.training.player import Player
from palaestra.training.ranks import on_first
from palaestra.training.seams import Moment
from palaestra.training.sharding import whole_tensor
from palaestra.training.statistics import episode_advantages, rollout_statistics, update_statistics
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import TrajectoryWriter

Stopped = Literal["iterations", "seconds", "interrupted"]
"""Why training ended."""

Progress = Callable[[Mapping[str, Any]], None]
"""Told of every row of metrics; and while an evaluation plays, of `kind` "playing": its `tag`, the `iteration`,
episodes `done` of `total`, how many of them were `played` now, and the `solved` ones among those."""


class Counters(msgspec.Struct):
    """What a run has done so far; saved with every checkpoint."""

    iteration: int = 0
    """Complete ones."""
    seconds: float = 0.0
    """Of rollouts and updates."""
    env_steps: int = 0
    tokens_generated: int = 0
    tokens_trained: int = 0
    """Read by the model in updates, padding excluded."""
    wall_seconds: float = 0.0
    """Of everything up to here, evaluations and earlier sessions included."""
    evaluated: int = -1
    """Iteration of the last evaluation."""


class Trainer:
    """One run. Its parts come from `palaestra.training.run`."""

    def __init__(
        self,
        recipe: Recipe,
        directory: Path,
        *,
        player: Player,
        learner: Learner,
        collector: Collector,
        metrics: MetricsWriter,
        store: TrajectoryWriter,
        validation: TaskSuite | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recipe, self.directory = recipe, directory
        self.player, self.learner, self.collector = player, learner, collector
        self.metrics, self.store, self.validation = metrics, store, validation
        self.progress = progress
        self.counters = Counters()
        self.epoch = time.perf_counter()
        """When the run would have begun, had it never been stopped; `counters.wall_seconds` counts from there."""
        self._saved = self._restored = -1

    async def run(self) -> Stopped:
        """Train until the budget is spent or the task is cancelled; either way the last state is on disk.

        Raises:
            PalaestraError: training cannot go on; earlier checkpoints are whole.
        """
        try:
            stopped = await self._stopped()
            await self.save()
            return stopped
        finally:
            await self.collector.close()

    async def _stopped(self) -> Stopped:
        try:
            return await self._loop()
        except asyncio.CancelledError:
            return "interrupted"

    async def _loop(self) -> Stopped:
        while True:
            await self._evaluate_if_due()
            if stopped := self._spent():
                return stopped
            began = time.perf_counter()
            moment = Moment(self.counters.iteration, self.recipe.budget.iterations, self.recipe.seed)
            played = await self.collector.collect(moment)
            for supplier in self.learner.algorithm.parts.suppliers:
                await supplier.fetch(played.trajectories, moment)
            await self._learn(played, moment, began)
            if self.counters.iteration % self.recipe.checkpoint.every == 0:
                await self.save()
            await self.collector.hand_over(self.counters.iteration)

    async def _learn(self, played: Played, moment: Moment, began: float) -> None:
        """Update on an iteration's episodes, and count it."""
        counters, done = self.counters, time.perf_counter()
        iteration, trajectories, rows = counters.iteration, played.trajectories, played.rows
        if not rows.trajectories:
            first = next((t.error for t in trajectories if t.error), "nothing was sampled")
            raise TrainingError(f"iteration {iteration}: no episode can be learned from ({rows.left_out}): {first}")
        update = await self.collector.update(partial(self._update, rows.batch, moment))
        for trajectory, advantage in zip(rows.trajectories, episode_advantages(update.batch), strict=True):
            trajectory.meta["advantage"] = advantage
        for trajectory in trajectories:
            trajectory.meta["iteration"] = iteration
            self.store.append(trajectory)
        row = {**rollout_statistics(trajectories), **played.log, **update_statistics(rows, update)}
        ended = time.perf_counter()
        counters.iteration += 1
        counters.seconds += on_first(lambda: ended - began)
        counters.env_steps += row["env_steps"]
        counters.tokens_generated += row["tokens_generated"]
        counters.tokens_trained += int(row["tokens_trained"] or 0)
        self._report("train", iteration, row, rollout_seconds=done - began, update_seconds=ended - done)

    def _update(self, batch: Batch, moment: Moment) -> Update:
        """The learner's update; where it fails, the error says how to go on."""
        try:
            return self.learner.update(batch, moment)
        except TrainingError as error:
            raise error if self.spoilt() else TrainingError(f"{error}; {self._mend()}") from error

    def _mend(self) -> str:
        return f"go on from it at a lower rate: {self._at_a_lower_rate}"

    @property
    def _at_a_lower_rate(self) -> str:
        return f"palaestra train {self.directory} optimiser.lr={self.recipe.optimiser.lr / 10:g} --resume"

    def spoilt(self) -> str:
        """What to add to an error where not even the checkpoint can be used that the run has just gone on from."""
        done = self.counters.iteration
        if done != self._restored or done == 0:
            return ""
        newest = self.directory / "checkpoints" / f"{done:06d}"
        earlier = [path.name for path in list_checkpoints(newest.parent) if path.name < newest.name]
        then = f"go on from {earlier[-1]}" if earlier else "begin anew"
        return f"; its weights seem to be spoilt: delete {newest}, then {then}: {self._at_a_lower_rate}"

    def playing(self, tag: str) -> EpisodeProgress:
        """Tells `progress` how far the evaluation `tag` is."""
        played = solved = 0

        def tell(done: int, total: int, latest: Trajectory | None) -> None:
            nonlocal played, solved
            if latest is not None:
                played, solved = played + 1, solved + latest.success
            if self.progress:
                row = {"done": done, "total": total, "played": played, "solved": solved}
                self.progress({"kind": "playing", "tag": tag, "iteration": self.counters.iteration, **row})

        return tell

    async def _evaluate_if_due(self) -> None:
        counters, config = self.counters, self.recipe.evaluation
        due = config.every and (counters.iteration % config.every == 0 or self._spent())
        if self.validation is None or not due or counters.evaluated == counters.iteration:
            return
        result = await self.player.evaluate(
            self.validation,
            config.episodes,
            name=self.recipe.tasks.validation,
            version=counters.iteration,
            progress=self.playing("validation"),
        )
        counters.evaluated = counters.iteration
        self.learner.algorithm.evaluated(counters.iteration, result.success.value)
        self._report("eval", counters.iteration, msgspec.to_builtins(result), tag="validation")

    def _spent(self) -> Stopped | None:
        budget = self.recipe.budget
        if self.counters.iteration >= budget.iterations:
            return "iterations"
        return "seconds" if 0 < budget.max_seconds <= self.counters.seconds else None

    def _report(self, kind: str, iteration: int, row: Mapping[str, Any], **more: Any) -> None:
        full = {"kind": kind, "iteration": iteration, "elapsed": self.counters.seconds, **more, **row}
        full["rss_bytes"] = psutil.Process(os.getpid()).memory_info().rss
        self.metrics.write(full)
        if self.progress:
            self.progress(full)

    async def save(self) -> None:
        """Write a checkpoint of the last complete iteration, unless it is already there.

        Raises:
            TrainingError: a weight is not finite; the earlier checkpoints stay.
            PalaestraError: it cannot be written; the earlier checkpoints stay.
        """
        counters = self.counters
        if self._saved == counters.iteration:
            return
        self.store.sync()
        self.metrics.sync()
        counters.wall_seconds = time.perf_counter() - self.epoch
        state = {
            "counters": msgspec.to_builtins(counters),
            "algorithm": self.learner.algorithm.state_dict(),
            "offsets": {"metrics": self.metrics.offset, "trajectories": self.store.offset},
            "collector": self.collector.state_dict(),
        }
        await self.collector.save(partial(self._write, state))
        self._saved = counters.iteration
        self.collector.saved()

    def _write(self, state: dict[str, Any]) -> None:
        """A checkpoint with this state, and the learner's tensors."""
        iteration, model, optimiser = self.counters.iteration, self.learner.policy.model, self.learner.optimiser
        for name, parameter in model.named_parameters():
            if not bool(whole_tensor(parameter.isfinite().all())):
                raise TrainingError(
                    f"iteration {iteration - 1}: {name} is not finite after the update; the last checkpoint "
                    f"is untouched; {self._mend()}"
                )
        more = self.learner.more_tensors()
        checkpoint = Checkpoint(iteration, own_weights(model), optimiser.state_tensors(), state, more)
        save_checkpoint(self.directory / "checkpoints", checkpoint, keep=self.recipe.checkpoint.keep)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint: weights, optimiser, algorithm, counters and the lengths of the growing files.

        Raises:
            CheckpointError: it is of another model or algorithm; the run's files are as they were.
            DataError: the run's files are not those that it was made with; they are as they were.
        """
        state = checkpoint.state
        self.metrics.check_offset(state["offsets"]["metrics"])
        self.store.check_offset(state["offsets"]["trajectories"])
        self.learner.algorithm.load_state_dict(state["algorithm"])
        load_weights(self.learner.policy.model, checkpoint.model)
        self.learner.optimiser.load_state_tensors(checkpoint.optimiser)
        self.learner.load_more_tensors(checkpoint.more)
        self.learner.publish()
        self.metrics.truncate_to(state["offsets"]["metrics"])
        self.store.truncate_to(state["offsets"]["trajectories"])
        self.counters = msgspec.convert(state["counters"], Counters)
        self.collector.load_state_dict(state.get("collector", {}), self.counters.iteration)
        self._saved = self._restored = self.counters.iteration
