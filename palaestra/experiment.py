"""An experiment from a recipe to its report: train, evaluate, summarise, draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from palaestra.config import Recipe
from palaestra.errors import PalaestraError, require
from palaestra.memory import PeakMemory
from palaestra.summary import amend_summary, costs_so_far

if TYPE_CHECKING:
    from palaestra.training.run import RunResult

Progress = Callable[[Mapping[str, Any]], None]
"""Told of every row of metrics."""

Watch = Callable[[Recipe], Progress]
"""Gives the `Progress` of one training."""


class Launcher(Protocol):
    """Trains as `palaestra.training.run.train` does."""

    def __call__(
        self, recipe: Recipe, *, resume: bool = False, progress: Callable[[Mapping[str, Any]], None] | None = None
    ) -> RunResult:
        """See there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an experiment."""

    result: RunResult
    summary: Mapping[str, Any]
    """Content of `summary.json`."""
    report: Path | None
    """The HTML report; `None` where this run, or its baseline, was interrupted."""


def run_experiment(
    recipe: Recipe,
    *,
    baseline: Recipe | None = None,
    resume: bool = False,
    progress: Watch | None = None,
    launcher: Launcher | None = None,
) -> Outcome:
    """Train as the recipe says, evaluate before and after on the test suite, and write summary and report.

    Args:
        recipe: from `load_recipe`; its run directory gets everything.
        baseline: another recipe to train afterwards, with a run directory of its own, and to show beside the first.
        resume: go on from the newest checkpoint there.
        progress: asked once for each recipe that is trained.
        launcher: trains elsewhere than in this process.

    Raises:
        MissingExtraError: the extra `train` is not installed.
        PalaestraError: naming cause and mend; what was done before is on disk.
    """
    require_training()
    from palaestra.training.run import train as here

    train = launcher or here
    known = costs_so_far(recipe.directory).peak_rss_bytes if resume else 0
    with PeakMemory(known=known) as memory:
        result = train(recipe, resume=resume, progress=progress(recipe) if progress else None)
        trained = time.perf_counter()

        def costs() -> dict[str, Any]:
            since = time.perf_counter() - trained
            return {"peak_rss_bytes": memory.peak(), "wall_seconds": result.counters.wall_seconds + since}

        if result.stopped == "interrupted":
            return Outcome(result, amend_summary(result.directory, costs()), None)
        # Before the baseline is trained, so that nobody who stops it is left without.
        outcome = _conclude(result, costs(), {})
        if baseline is None:
            return outcome
        other = train(baseline, resume=resume, progress=progress(baseline) if progress else None)
        if other.stopped == "interrupted":
            return Outcome(result, amend_summary(result.directory, costs()), None)
        return _conclude(result, costs(), {baseline.algorithm.name: other})


def _conclude(result: RunResult, costs: Mapping[str, Any], others: Mapping[str, RunResult]) -> Outcome:
    """Summary and report of a finished run, with the results of others, by algorithm, beside its own."""
    from palaestra.trajectories.report import write_report
    from palaestra.trajectories.report.law import law_of
    from palaestra.trajectories.report.run import Run

    shown = {name: other for name, other in others.items() if "rl" in other.evaluations}
    changes = {f"success_{name}": msgspec.to_builtins(other.evaluations["rl"].success) for name, other in shown.items()}
    report, law = result.directory / "report.html", law_of(Run.read(result.directory))
    summary = amend_summary(
        result.directory, {**changes, **costs, "entropy_law": msgspec.to_builtins(law), "report": str(report)}
    )
    write_report(result.directory, out=report, compare={name.upper(): other.directory for name, other in shown.items()})
    return Outcome(result, summary, report)


def check_experiment(recipe: Recipe) -> None:
    """Look for what `run_experiment` would refuse, without loading a model or writing anything.

    Raises:
        MissingExtraError: an extra is not installed.
        PalaestraError: the recipe names something that there is not.
    """
    require_training()
    from palaestra.training.run import check_recipe

    check_recipe(recipe)


def require_training() -> None:
    """Raise `MissingExtraError` unless everything that training needs is installed."""
    for module in ("torch", "safetensors", "tokenizers", "psutil", "transformers"):
        require(module, "train")


def set_aside(directory: Path) -> Path | None:
    """Rename `directory`, if it exists, to the first of `NAME.1`, `NAME.2`, ... that is free, and return that.

    Raises:
        PalaestraError: it cannot be renamed.
    """
    if not directory.exists():
        return None
    number = 1
    while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
        number += 1
    try:
        return directory.rename(aside)
    except OSError as error:
        raise PalaestraError(f"cannot move {directory} out of the way: {error.strerror or error}") from error
