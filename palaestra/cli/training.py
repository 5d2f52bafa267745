"""What `train` and `demo` share: the run with its bar, and its summary as a table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from palaestra.cli.progress import Bars
from palaestra.config import Recipe

if TYPE_CHECKING:
    from palaestra.experiment import Launcher, Outcome

_ROWS = {
    "random": "success_random",
    "base model": "success_warm",
    "after training": "success_rl",
    "GRPO from the same start": "success_grpo",
    "oracle": "success_oracle",
}

_TAGS = {"warm": "the base model", "rl": "on held-out tasks", "random": "random", "oracle": "the oracle"}
"""What is said of each evaluation on the test suite while it plays."""


def run_with_bar(
    recipe: Recipe,
    *,
    baseline: Recipe | None = None,
    resume: bool,
    command: str = "",
    launcher: Launcher | None = None,
) -> int:
    """Run the experiment, print its summary and the path of its report; returns the exit code.

    Args:
        recipe: what to train.
        baseline: what to train afterwards, to stand beside it.
        resume: go on from what is there.
        command: what goes on with it after an interruption; `palaestra train DIRECTORY --resume` if not given.
        launcher: trains elsewhere than in this process.
    """
    from palaestra.experiment import run_experiment

    with Bars() as bars:
        watch = partial(TrainingBar, bars)
        outcome = run_experiment(recipe, baseline=baseline, resume=resume, progress=watch, launcher=launcher)
    if outcome.report is None:
        done = outcome.result.counters.iteration
        saved = "1 iteration is saved" if done == 1 else f"{done} iterations are saved"
        command = command or f"palaestra train {shlex.quote(str(outcome.result.directory))} --resume"
        raise KeyboardInterrupt(f"{saved}, go on with: {command}")
    print_outcome(outcome)
    return 0


class TrainingBar:
    """A bar that follows the rows of metrics and the episodes of evaluations, and a line for every evaluation."""

    def __init__(self, bars: Bars, recipe: Recipe) -> None:
        self.console = bars.console
        self._budget = recipe.budget
        self._move = bars.add(f"{recipe.name} ({recipe.algorithm.name})", recipe.budget.iterations)
        self._move(0, recipe.budget.iterations, "starting")

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Show one row."""
        total, done = self._budget.iterations, int(row["iteration"])
        if row["kind"] == "playing":
            rate = f", {100 * row['solved'] / row['played']:.0f} % solved" if row["played"] else ""
            self._move(
                done, total, f"evaluating {_TAGS.get(row['tag'], row['tag'])}: {row['done']}/{row['total']}{rate}"
            )
        elif row["kind"] == "warm start":
            self._move(done, total, f"warm start, {row['tag']}: {row['done']}/{row['total']}, {row['note']}")
        elif row["kind"] == "eval":
            self.console.print(f"iteration {done:>4}  {row.get('tag', '')} {_rate(row['success'])}")
        else:
            entropy = _number(row.get("entropy"))
            self._move(
                done + 1, total, f"success {100 * row['success']:.0f} %, entropy {entropy}, {row['elapsed']:.0f} s"
            )


def print_outcome(outcome: Outcome) -> None:
    """The summary as a table, and where the report is."""
    summary = outcome.summary
    table = Table(title="Success on held-out tasks", title_justify="left")
    table.add_column("agent")
    table.add_column("success [95 %]", justify="right", no_wrap=True)
    table.add_column("tasks", justify="right")
    for label, key in _ROWS.items():
        if rate := summary.get(key):
            name = f"{label} ({str(summary['algorithm']).upper()})" if key == "success_rl" else label
            table.add_row(name, _rate(rate), str(rate["n"]))
    console = Console()
    if table.row_count:
        console.print(table)
    console.print(_costs(summary), soft_wrap=True, highlight=False)
    console.print(f"summary: {outcome.result.directory / 'summary.json'}", soft_wrap=True, highlight=False)
    console.print(f"report:  {outcome.report}", soft_wrap=True, highlight=False)


def _costs(summary: Mapping[str, Any]) -> str:
    return (
        f"{summary['train_seconds']:.0f} s of training, {summary['wall_seconds']:.0f} s in all, "
        f"{summary['peak_rss_bytes'] / 2**30:.1f} GiB at most, {summary['env_steps']} steps"
    )


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{100 * rate['value']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
