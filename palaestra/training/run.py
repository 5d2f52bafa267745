"""One run from a recipe to a finished directory: what `palaestra train` does.

runs/NAME/recipe.yaml  metrics.jsonl  trajectories/train.ptj  checkpoints/000010/  eval/TAG.json  model/  summary.json
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers.utils import logging as transformers_logging

from palaestra.agents.agent import Agent
from palaestra.agents.models import LoadedModel, load_model
from palaestra.agents.scripted import OracleAgent, RandomAgent
from palaestra.config import Recipe, parse_recipe, to_dict, to_yaml
from palaestra.envs.tasks import load_suite
from palaestra.errors import ConfigError, PalaestraError
from palaestra.evaluation.result import EvalResult
from palaestra.training.algorithms import build_algorithm, resolve_algorithm
from palaestra.training.checkpoint import load_latest
from palaestra.training.learner import Learner
from palaestra.training.metrics import MetricsWriter
from palaestra.training.player import Player
from palaestra.training.sampling import TaskSampler
from palaestra.training.trainer import Counters, Progress, Stopped, Trainer
from palaestra.trajectories.store import TrajectoryWriter

FREE_TO_CHANGE = ("out", "budget", "evaluation", "checkpoint", "tensorboard")
"""Sections in which a resumed run may differ from what was begun."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run."""

    directory: Path
    stopped: Stopped
    """Why training ended; `interrupted` can be resumed."""
    counters: Counters
    evaluations: dict[str, EvalResult] = field(default_factory=dict)
    """On the test suite, by tag: `warm` (before training), `rl` (after), `random`, `oracle`."""


def train(recipe: Recipe, *, resume: bool = False, progress: Progress | None = None) -> RunResult:
    """Train as the recipe says, into its run directory.

    Args:
        recipe: from `load_recipe`.
        resume: go on from the newest whole checkpoint of the directory, to the result that an undisturbed run would
            have had; from the start where there is none.
        progress: told of every row of metrics.

    Returns:
        The result; after Ctrl-C one whose `stopped` is `interrupted`, with a checkpoint of the last complete iteration.

    Raises:
        PalaestraError: naming cause and mend; what was done before is on disk.
    """
    recipe = msgspec.structs.replace(recipe, algorithm=resolve_algorithm(recipe.algorithm))
    algorithm = build_algorithm(recipe)
    if recipe.model.threads:
        torch.set_num_threads(recipe.model.threads)
    began = time.perf_counter()
    suites = {name: load_suite(reference) if reference else None for name, reference in _suites(recipe).items()}
    assert suites["train"] is not None
    sampler = TaskSampler(suites["train"], recipe.rollout, recipe.seed)
    loaded = load_model(recipe.model.reference, dtype=recipe.model.dtype, device=recipe.model.device)
    player = Player(recipe, loaded)
    reference = copy.deepcopy(loaded.model) if "ref_logprob" in algorithm.requires else None
    learner = Learner(
        loaded.model,
        algorithm,
        config=recipe.learner,
        optimiser=recipe.optimiser,
        seed=recipe.seed,
        reference=reference,
    )
    directory = _open_directory(recipe, resume=resume)
    board = directory / "tensorboard" if recipe.tensorboard else None
    with (
        MetricsWriter(directory / "metrics.jsonl", tensorboard=board) as metrics,
        TrajectoryWriter(directory / "trajectories" / "train.ptj") as store,
    ):
        trainer = Trainer(
            recipe,
            directory,
            player=player,
            learner=learner,
            sampler=sampler,
            metrics=metrics,
            store=store,
            validation=suites["validation"],
            progress=progress,
        )
        checkpoint = load_latest(directory / "checkpoints") if resume else None
        if checkpoint is not None:
            trainer.restore(checkpoint)
        run = _Run(recipe, directory, player, trainer, suites["test"])
        result = asyncio.run(run.complete())
    _write_summary(result, recipe, time.perf_counter() - began)
    return result


@dataclass(frozen=True, slots=True)
class _Run:
    """Training between the evaluations on the test suite."""

    recipe: Recipe
    directory: Path
    player: Player
    trainer: Trainer
    test: Any

    async def complete(self) -> RunResult:
        results: dict[str, EvalResult] = {}
        try:
            if self.trainer.counters.iteration == 0:
                await self._evaluate("warm", results)
            stopped = await self.trainer.run()
            if stopped != "interrupted":
                save_model(self.directory / "model", self.player.loaded)
                await self._evaluate("rl", results)
                await self._evaluate("random", results, RandomAgent())
                await self._evaluate("oracle", results, OracleAgent())
        except asyncio.CancelledError:
            stopped = "interrupted"
        earlier = self.directory / "eval" / "warm.json"
        if "warm" not in results and earlier.exists():
            results["warm"] = EvalResult.load(earlier)
        return RunResult(self.directory, stopped, self.trainer.counters, results)

    async def _evaluate(self, tag: str, results: dict[str, EvalResult], agent: Agent | None = None) -> None:
        """Evaluate on the test suite, write `eval/TAG.json`; an agent that cannot play there is left out."""
        count = self.recipe.evaluation.test_episodes
        if self.test is None or not count:
            return
        store = self.directory / "trajectories" / f"eval-{tag}.ptj"
        store.unlink(missing_ok=True)
        name = self.recipe.tasks.test
        if agent is None:
            version = self.trainer.counters.iteration
            result = await self.player.evaluate(self.test, count, name=name, version=version, store=store)
        else:
            result = await self.player.evaluate_agent(agent, self.test, count, name=name, store=store)
            if not result.statuses.get("ok"):
                return
        result.save(self.directory / "eval" / f"{tag}.json")
        results[tag] = result


def save_model(folder: Path, loaded: LoadedModel) -> None:
    """Write a model directory that `load_model` reads; a kill leaves none rather than half of one.

    Raises:
        PalaestraError: it cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        for path in (partial, folder):
            if path.exists():
                shutil.rmtree(path)
        with _no_bars():
            loaded.model.save_pretrained(partial)
        loaded.tokenizer.save_pretrained(partial)
        os.replace(partial, folder)
    except OSError as error:
        raise PalaestraError(f"cannot write {folder}: {error.strerror or error}") from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' progress bars off the terminal."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _suites(recipe: Recipe) -> dict[str, str]:
    return {"train": recipe.tasks.train, "validation": recipe.tasks.validation, "test": recipe.tasks.test}


def _open_directory(recipe: Recipe, *, resume: bool) -> Path:
    """Make or enter the run directory, and save the resolved recipe.

    Raises:
        ConfigError: it holds a run and `resume` is off, or that run has other settings.
        PalaestraError: it cannot be written.
    """
    directory = recipe.directory
    saved = directory / "recipe.yaml"
    try:
        if saved.exists():
            _check_same(recipe, saved, resume=resume)
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / "checkpoints").is_dir():  # a run that was killed before its first checkpoint begins again
            (directory / "metrics.jsonl").unlink(missing_ok=True)
            (directory / "trajectories" / "train.ptj").unlink(missing_ok=True)
        partial = directory / ".recipe.yaml.partial"
        partial.write_text(to_yaml(recipe), encoding="utf-8")
        os.replace(partial, saved)
    except OSError as error:
        reason = error.strerror or error
        raise PalaestraError(f"cannot write run directory {directory}: {reason}; choose another with out=") from error
    return directory


def _check_same(recipe: Recipe, saved: Path, *, resume: bool) -> None:
    if not resume:
        raise ConfigError(f"{saved.parent} already holds a run; resume it (--resume) or choose another with out=")
    before = to_dict(parse_recipe(saved.read_text(encoding="utf-8"), source=str(saved)))
    changed = sorted(_differences(before, to_dict(recipe)))
    if changed:
        raise ConfigError(
            f"cannot resume {saved.parent} with other settings ({', '.join(changed)}); choose another out="
        )


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys, with their path, that have other values; sections that may change are left out."""
    found: list[str] = []
    for key in [*before, *(k for k in now if k not in before)]:
        if not prefix and key in FREE_TO_CHANGE:
            continue
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found


def _write_summary(result: RunResult, recipe: Recipe, seconds: float) -> None:
    """`summary.json`: rates with intervals, and what the run took."""
    counters = result.counters
    summary: dict[str, Any] = {
        f"success_{tag}": msgspec.to_builtins(result.evaluations[tag].success) if tag in result.evaluations else None
        for tag in ("warm", "rl", "random", "oracle")
    }
    summary |= {
        "train_seconds": counters.seconds,
        "wall_seconds": seconds,
        "peak_rss_bytes": peak_rss(),
        "iterations": counters.iteration,
        "env_steps": counters.env_steps,
        "tokens_generated": counters.tokens_generated,
        "tokens_trained": counters.tokens_trained,
        "algorithm": recipe.algorithm.name,
        "seed": recipe.seed,
        "stopped": result.stopped,
        "report": None,
    }
    path = result.directory / "summary.json"
    try:
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise PalaestraError(f"cannot write {path}: {error.strerror or error}") from error


def peak_rss() -> int:
    """Most bytes of memory that this process ever held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
