"""An experiment from a recipe to its report: train, evaluate, summarise, draw."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from palaestra.config import Recipe
from palaestra.errors import DataError, PalaestraError, require
from palaestra.files import replace_text

if TYPE_CHECKING:
    from palaestra.training.run import RunResult

Progress = Callable[[Mapping[str, Any]], None]
"""Told of every row of metrics."""

Watch = Callable[[Recipe], Progress]
"""Gives the `Progress` of one training."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an experiment."""

    result: RunResult
    summary: Mapping[str, Any]
    """Content of `summary.json`."""
    report: Path | None
    """The HTML report; `None` where this run, or its baseline, was interrupted."""


def run_experiment(
    recipe: Recipe, *, baseline: Recipe | None = None, resume: bool = False, progress: Watch | None = None
) -> Outcome:
    """Train as the recipe says, evaluate before and after on the test suite, and write summary and report.

    Args:
        recipe: from `load_recipe`; its run directory gets everything.
        baseline: another recipe to train afterwards, with a run directory of its own, and to show beside the first.
        resume: go on from the newest checkpoint there.
        progress: asked once for each recipe that is trained.

    Raises:
        MissingExtraError: the extra `train` is not installed.
        PalaestraError: naming cause and mend; what was done before is on disk.
    """
    require_training()
    from palaestra.training.run import train

    began = time.perf_counter()
    with PeakMemory() as memory:

        def costs() -> dict[str, Any]:
            return {"peak_rss_bytes": memory.peak(), "wall_seconds": time.perf_counter() - began}

        result = train(recipe, resume=resume, progress=progress(recipe) if progress else None)
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

    shown = {name: other for name, other in others.items() if "rl" in other.evaluations}
    changes = {f"success_{name}": msgspec.to_builtins(other.evaluations["rl"].success) for name, other in shown.items()}
    report = result.directory / "report.html"
    summary = amend_summary(result.directory, {**changes, **costs, "report": str(report)})
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


def amend_summary(directory: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set keys of `summary.json`; a kill leaves the old file or the new one.

    Raises:
        DataError: there is no summary, or it cannot be read.
        PalaestraError: it cannot be written.
    """
    path = directory / "summary.json"
    try:
        summary: dict[str, Any] = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    replace_text(path, json.dumps(summary, indent=2) + "\n")
    return summary


class PeakMemory:
    """Samples the resident memory of this process and its children in a thread, while the block runs."""

    def __init__(self, seconds: float = 0.5) -> None:
        self.seconds = seconds
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def peak(self) -> int:
        """Most bytes seen at once so far; pages that processes share count for each."""
        self._peak = max(self._peak, _tree_rss())
        return self._peak

    def _sample(self) -> None:
        while not self._stop.wait(self.seconds):
            self.peak()


def _tree_rss() -> int:
    import psutil

    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.Error):  # it has just ended
            total += process.memory_info().rss
    return total
