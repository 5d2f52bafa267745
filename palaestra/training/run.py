"""One run from a recipe to a finished directory: what `palaestra train` does.

runs/NAME/recipe.yaml  metrics.jsonl  trajectories/train.ptj  checkpoints/000010/  eval/TAG.json  model/  summary.json
"""

from __future__ import annotations

import asyncio
import copy
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import torch

from palaestra.agents.agent import Agent
from palaestra.agents.chat import ChatFormat
from palaestra.agents.models import LoadedModel, load_model, resolve_model
from palaestra.agents.scripted import OracleAgent, RandomAgent
from palaestra.config import Recipe
from palaestra.envs.deadline import run_to_the_end
from palaestra.envs.tasks import TaskSuite, load_suite
from palaestra.errors import ConfigError, DataError, PalaestraError, TrainingError, require
from palaestra.evaluation.result import EvalResult
from palaestra.files import cannot_write
from palaestra.memory import peak_rss
from palaestra.summary import Costs, costs_so_far, write_summary
from palaestra.training.algorithms import build_algorithm, resolve_algorithm
from palaestra.training.asynchronous.collector import AsyncCollector
from palaestra.training.asynchronous.correction import corrected
from palaestra.training.asynchronous.gang import GangCollector
from palaestra.training.asynchronous.journal import Journal
from palaestra.training.asynchronous.resident import ResidentPlayer, resident_player
from palaestra.training.checkpoint import load_latest
from palaestra.training.collector import BuildRows, Collector
from palaestra.training.directory import check_directory, open_directory
from palaestra.training.engine_player import check_adapters, local_player
from palaestra.training.gang import GangPlayer, joined, shared_out
from palaestra.training.learner import Learner
from palaestra.training.levels import curriculum_suite, curriculum_summary
from palaestra.training.lora import add_lora, has_lora
from palaestra.training.metrics import MetricsWriter
from palaestra.training.outputs import opened
from palaestra.training.player import OpenPlayer, Player
from palaestra.training.providers import Run
from palaestra.training.ranks import on_first, rank, ranks
from palaestra.training.rounds import Rounds
from palaestra.training.rows import build_rows
from palaestra.training.sampling import TaskSampler
from palaestra.training.saving import save_model
from palaestra.training.trainer import Counters, Progress, Stopped, Trainer
from palaestra.training.warm_start import base_model
from palaestra.trajectories.store import TrajectoryWriter


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run."""

    directory: Path
    stopped: Stopped
    """Why training ended; `interrupted` can be resumed."""
    counters: Counters
    evaluations: dict[str, EvalResult] = field(default_factory=dict)
    """On the test suite, by tag: `warm` (before training), `rl` (after), `random`, `oracle`."""


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    open_player: OpenPlayer = local_player,
) -> RunResult:
    """Train as the recipe says, into its run directory.

    Args:
        recipe: from `load_recipe`.
        resume: go on from the newest whole checkpoint of the directory, to the result that an undisturbed run would
            have had; from the start where there is none.
        progress: told of every row of metrics, and of the episodes of evaluations.
        open_player: makes who plays.

    Returns:
        The result; after Ctrl-C one whose `stopped` is `interrupted`, with a checkpoint of the last complete iteration.

    Raises:
        PalaestraError: naming cause and mend; what was done before is on disk.
    """
    with joined(recipe.model.device):
        return _train(recipe, resume, progress, open_player)


def _train(recipe: Recipe, resume: bool, progress: Progress | None, open_player: OpenPlayer) -> RunResult:
    began = time.perf_counter()
    before = costs_so_far(recipe.directory) if resume else Costs()
    parts = _Parts.of(recipe, resume, progress, open_player)
    directory = open_directory(parts.recipe, resume=resume)
    with opened(directory, tensorboard=recipe.tensorboard) as (metrics, store):
        trainer = parts.trainer(directory, metrics, store, progress)
        trainer.epoch = began - before.wall_seconds
        earlier = before if resume else None
        run = _Run(parts.recipe, directory, parts.loaded, parts.player, trainer, parts.suites["test"], earlier)
        result = run_to_the_end(run.complete(), cancellable=True)
    result.counters.wall_seconds = time.perf_counter() - trainer.epoch
    more = curriculum_summary(trainer.learner.algorithm.parts)
    if rank() == 0:
        _write_summary(result, recipe, max(before.peak_rss_bytes, peak_rss()), more)
    return result


def check_recipe(recipe: Recipe) -> None:
    """Look for what `train` would refuse, without loading a model or writing anything.

    Raises:
        PalaestraError: naming cause and mend.
    """
    algorithm = build_algorithm(resolved(recipe))
    for part in algorithm.parts.attachments:
        part.check()
    check_adapters(recipe)
    _suites(recipe)
    resolve_model(recipe.model.reference)
    if recipe.tensorboard:
        require("tensorboard", "train")


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with the algorithm's defaults filled in, and what corrects for old weights where they may be old.

    Raises:
        UnknownNameError: no algorithm or plug-in has that name.
        ConfigError: a setting that a plug-in does not have or cannot have.
    """
    return msgspec.structs.replace(recipe, algorithm=resolve_algorithm(corrected(recipe)))


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a run is made of; nothing of it has touched the run directory yet."""

    recipe: Recipe
    """With the algorithm's defaults filled in."""
    suites: dict[str, TaskSuite | None]
    """`train`, `validation`, `test`."""
    sampler: TaskSampler
    loaded: LoadedModel
    """The policy."""
    player: Player
    learner: Learner

    @classmethod
    def of(cls, recipe: Recipe, resume: bool, progress: Progress | None, open_player: OpenPlayer) -> Self:
        """Load and build everything that the recipe names."""
        check_recipe(recipe)
        recipe = resolved(recipe)
        check_directory(recipe, resume=resume)
        if recipe.model.threads:
            torch.set_num_threads(recipe.model.threads)
        suites = _suites(recipe)
        assert suites["train"] is not None
        sampler = TaskSampler(suites["train"], recipe.rollout, recipe.seed)
        reference = recipe.model.reference
        if recipe.warm_start.episodes:
            train_on = suites["train"]
            reference = on_first(lambda: str(base_model(recipe, train_on, progress)), TrainingError)
        loaded = load_model(reference, dtype=recipe.model.dtype, device=recipe.model.device)
        if recipe.model.lora.rank:
            add_lora(loaded.model, recipe.model.lora, recipe.seed)
        player, learner = shared_out(open_player(recipe, loaded)), _learner(recipe, loaded)
        for part in learner.algorithm.parts.attachments:
            part.attach(Run(recipe, loaded, ChatFormat.from_tokenizer(loaded.tokenizer), recipe.directory))
        return cls(recipe, suites, sampler, loaded, player, learner)

    def trainer(
        self, directory: Path, metrics: MetricsWriter, store: TrajectoryWriter, progress: Progress | None
    ) -> Trainer:
        """A trainer of these parts."""
        return Trainer(
            self.recipe,
            directory,
            player=self.player,
            learner=self.learner,
            collector=self._collector(directory),
            metrics=metrics,
            store=store,
            validation=self.suites["validation"],
            progress=progress,
        )

    def _collector(self, directory: Path) -> Collector:
        """What the trainer's mode asks for."""
        recipe, algorithm = self.recipe, self.learner.algorithm
        build = partial(build_rows, temperature=recipe.agent.temperature, invalid_penalty=algorithm.invalid_penalty)
        if recipe.trainer.mode == "sync":
            return Rounds(self.sampler, self.player, algorithm.parts, build)
        if ranks() == 1:
            return self._asynchronous(self.player, directory, build)
        assert isinstance(self.player, GangPlayer)
        return GangCollector(None if rank() else self._asynchronous(self.player.inner, directory, build))

    def _asynchronous(self, player: Player, directory: Path, build: BuildRows) -> AsyncCollector:
        resident = resident_player(self.recipe, self.loaded, player)
        rounds = Rounds(self.sampler, resident, self.learner.algorithm.parts, build)
        journal = Journal(directory / "trajectories" / "pending.ptj")
        weights, own = self.loaded.model.state_dict, isinstance(resident, ResidentPlayer)
        return AsyncCollector(self.recipe, rounds, resident, journal, weights, owns_player=own)


def _suites(recipe: Recipe) -> dict[str, TaskSuite | None]:
    tasks = recipe.tasks
    levels = tasks.curriculum.levels
    if not (tasks.train or levels):
        raise ConfigError("tasks: name a suite in tasks.train, or levels in tasks.curriculum.levels")
    references = {"train": "" if levels else tasks.train, "validation": tasks.validation, "test": tasks.test}
    suites: dict[str, TaskSuite | None] = {
        name: load_suite(reference, **tasks.params) if reference else None for name, reference in references.items()
    }
    return {**suites, "train": curriculum_suite(recipe)} if levels else suites


def _learner(recipe: Recipe, loaded: LoadedModel) -> Learner:
    algorithm = build_algorithm(recipe)
    return Learner(
        loaded.model,
        algorithm,
        config=recipe.learner,
        optimiser=recipe.optimiser,
        seed=recipe.seed,
        reference=_reference(loaded) if "ref_logprob" in algorithm.requires else None,
    )


def _reference(loaded: LoadedModel) -> Any:
    """The model before training: a copy, or the model itself, which adapters leave as it is."""
    return loaded.model if has_lora(loaded.model) else copy.deepcopy(loaded.model)


@dataclass(frozen=True, slots=True)
class _Run:
    """Training between the evaluations on the test suite."""

    recipe: Recipe
    directory: Path
    loaded: LoadedModel
    player: Player
    trainer: Trainer
    test: TaskSuite | None
    before: Costs | None
    """Of the sessions that this one resumes."""

    async def complete(self) -> RunResult:
        results: dict[str, EvalResult] = {}
        try:
            if self.before is not None:
                self._restore(self.before)
            if self.trainer.counters.iteration == 0:
                await self._evaluate("warm", results)
            stopped = await self.trainer.run()
            if stopped != "interrupted":
                folder, mend = self.directory / "model", "the checkpoints are safe, --resume goes on"
                on_first(lambda: save_model(folder, self.loaded, mend=mend), PalaestraError)
                await self._evaluate("rl", results)
                await self._evaluate("random", results, RandomAgent())
                await self._evaluate("oracle", results, OracleAgent())
        except asyncio.CancelledError:
            stopped = "interrupted"
        except TrainingError as error:
            raise TrainingError(f"{error}{self.trainer.spoilt()}") from error
        finally:
            await self.trainer.collector.close()
            await self.player.close()
        earlier = self.directory / "eval" / "warm.json"
        if "warm" not in results and earlier.exists():
            results["warm"] = EvalResult.load(earlier)
        return RunResult(self.directory, stopped, self.trainer.counters, results)

    def _restore(self, before: Costs) -> None:
        trainer, checkpoint = self.trainer, load_latest(self.directory / "checkpoints")
        if checkpoint is not None:
            trainer.restore(checkpoint)
            trainer.epoch -= max(trainer.counters.wall_seconds - before.wall_seconds, 0)

    async def _evaluate(self, tag: str, results: dict[str, EvalResult], agent: Agent | None = None) -> None:
        """Evaluate on the test suite, write `eval/TAG.json`; a scripted agent that cannot play there is left out.

        An evaluation that was interrupted goes on where it was, if the weights are still the same.
        """
        if self.test is None or not self.recipe.evaluation.test_episodes:
            return
        store = self.directory / "trajectories" / f"eval-{tag}.ptj"
        try:
            result = await self._play(tag, self.test, store, agent)
        except DataError:  # it is of other weights or settings, or damaged
            try:
                store.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(store, error) from error
            result = await self._play(tag, self.test, store, agent)
        if agent is not None and not result.statuses.get("ok"):
            return
        if rank() == 0:
            result.save(self.directory / "eval" / f"{tag}.json")
        results[tag] = result

    async def _play(self, tag: str, suite: TaskSuite, store: Path, agent: Agent | None) -> EvalResult:
        count, name, progress = (
            self.recipe.evaluation.test_episodes,
            self.recipe.tasks.test,
            self.trainer.playing(tag),
        )
        if agent is not None:
            return await self.player.evaluate_agent(agent, suite, count, name=name, store=store, progress=progress)
        version = self.trainer.counters.iteration
        return await self.player.evaluate(suite, count, name=name, version=version, store=store, progress=progress)


def _write_summary(result: RunResult, recipe: Recipe, peak: int, more: dict[str, Any]) -> None:
    """`summary.json`: rates with intervals, and what the run took."""
    counters = result.counters
    summary: dict[str, Any] = {
        f"success_{tag}": msgspec.to_builtins(result.evaluations[tag].success) if tag in result.evaluations else None
        for tag in ("warm", "rl", "random", "oracle")
    }
    summary |= {
        "train_seconds": counters.seconds,
        "wall_seconds": counters.wall_seconds,
        "peak_rss_bytes": peak,
        "iterations": counters.iteration,
        "env_steps": counters.env_steps,
        "tokens_generated": counters.tokens_generated,
        "tokens_trained": counters.tokens_trained,
        "algorithm": recipe.algorithm.name,
        "seed": recipe.seed,
        "stopped": result.stopped,
        "report": None,
        **more,
    }
    write_summary(result.directory, summary)
