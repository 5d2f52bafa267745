"""What a run directory holds, read with distrust: anything missing is left out, anything odd is ignored."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from palaestra.errors import DataError
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import read_trajectories

BEFORE = ("warm", "base", "initial", "before")
"""Tags of evaluations of the model that training starts from."""
AFTER = ("rl", "final", "after", "test", "trained")
"""Tags of evaluations of the trained model."""

Comparable = str | os.PathLike[str] | Mapping[str, Any] | msgspec.Struct
"""What can stand beside a run: another run directory, an evaluation's JSON file, or its content."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A rate with its 95 % interval; all in [0, 1]."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def read(cls, data: object) -> Proportion | None:
        """From `{"value", "n", "low", "high"}`; `None` if it is not that."""
        if not isinstance(data, Mapping) or (value := numeric(data.get("value"))) is None:
            return None
        low, high = numeric(data.get("low")), numeric(data.get("high"))
        return cls(
            value=value,
            low=value if low is None else low,
            high=value if high is None else high,
            n=int(numeric(data.get("n")) or 0),
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One agent on one suite."""

    label: str
    """As it is called on the page."""
    success: Proportion
    suite: str = ""
    length: float | None = None
    """Mean turns."""
    invalid_rate: float | None = None
    by_kind: Mapping[str, Proportion] = field(default_factory=dict)
    """Success per task type."""

    @classmethod
    def read(cls, label: str, data: object) -> Evaluation | None:
        """From an evaluation's JSON; `None` if it has no success rate."""
        if not isinstance(data, Mapping) or (success := Proportion.read(data.get("success"))) is None:
            return None
        kinds = mapping(data.get("by_kind"))
        found = {str(kind): Proportion.read(mapping(row).get("success")) for kind, row in kinds.items()}
        return cls(
            label=label,
            success=success,
            suite=str(data.get("suite", "")),
            length=numeric(data.get("length")),
            invalid_rate=numeric(data.get("invalid_rate")),
            by_kind={kind: rate for kind, rate in found.items() if rate is not None},
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory."""

    path: Path
    train: list[dict[str, Any]]
    """Rows of `metrics.jsonl` of kind `train`, one per iteration, in order."""
    evals: list[dict[str, Any]]
    """Those of kind `eval`."""
    results: dict[str, dict[str, Any]]
    """`eval/TAG.json` by tag."""
    summary: dict[str, Any]
    recipe: str
    """Text of `recipe.yaml`."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Run:
        """Read everything but the trajectories.

        Raises:
            DataError: if there is no run at `path`, or a file is there but not readable as what it should be.
        """
        folder = Path(path)
        rows = _rows(folder / "metrics.jsonl")
        results = {file.stem: _json(file) for file in sorted((folder / "eval").glob("*.json"))}
        summary = _json(folder / "summary.json")
        if not (rows or results or summary):
            raise DataError(f"{folder} is no run directory: it has neither metrics.jsonl, eval/*.json nor summary.json")
        recipe = folder / "recipe.yaml"
        return cls(
            path=folder,
            train=_by_iteration(row for row in rows if row.get("kind") == "train"),
            evals=_by_iteration(row for row in rows if row.get("kind") == "eval"),
            results=results,
            summary=summary,
            recipe=recipe.read_text("utf-8", "replace") if recipe.is_file() else "",
        )

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    @property
    def own_label(self) -> str:
        """What the run's own result is called beside others."""
        return self.algorithm or "Trained"

    @property
    def algorithm(self) -> str:
        """As people write it: EPO, GRPO; empty while the run has no summary."""
        return str(self.summary.get("algorithm") or "").upper()

    def result(self, tags: tuple[str, ...], key: str, label: str) -> Evaluation | None:
        """The evaluation under the first of `tags` that exists; its success rate may be in the summary alone."""
        for tag in tags:
            found = Evaluation.read(label, self.results.get(tag))
            if found is not None:
                return found
        rate = Proportion.read(self.summary.get(key))
        return Evaluation(label=label, success=rate) if rate is not None else None

    def trajectory_files(self) -> dict[str, Path]:
        """`train`, and `eval-TAG` by name."""
        return {file.stem: file for file in sorted((self.path / "trajectories").glob("*.ptj"))}


def compared(run: Run, others: Mapping[str, Comparable]) -> list[Evaluation]:
    """Everything that can stand beside the run's own result, the run's own included, in the order of a story."""
    own = [
        run.result(("random",), "success_random", "Random"),
        run.result(BEFORE, "success_warm", "Base model"),
        run.result(AFTER, "success_rl", run.own_label),
    ]
    foreign = [_foreign(label, other) for label, other in others.items()]
    last = [run.result(("oracle",), "success_oracle", "Oracle")]
    return [result for result in (*own, *foreign, *last) if result is not None]


def numeric(value: object) -> float | None:
    """`value` as a finite float, or `None`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def column(rows: list[dict[str, Any]], key: str) -> list[float | None]:
    """One number per row, `None` where it is missing."""
    return [numeric(row.get(key)) for row in rows]


def readable(path: Path) -> Iterator[Trajectory]:
    """The trajectories of a file up to the first damage: a report of most is better than none."""
    try:
        yield from read_trajectories(path, salvage=True)
    except DataError as error:
        warnings.warn(f"{error}; the report leaves the rest out", stacklevel=2)


def _foreign(label: str, other: Comparable) -> Evaluation:
    if isinstance(other, Mapping | msgspec.Struct):
        found = Evaluation.read(label, msgspec.to_builtins(other))
    elif Path(other).is_dir():
        found = Run.read(other).result(AFTER, "success_rl", label)
    elif Path(other).is_file():
        found = Evaluation.read(label, _json(Path(other)))
    else:
        raise DataError(f"cannot compare with {label!r}: there is no run or evaluation at {other}")
    if found is None:
        raise DataError(f"cannot compare with {label!r}: it has no success rate")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a line that a kill has torn is left out."""
    if not path.is_file():
        return []
    rows = []
    *whole, _torn = path.read_text("utf-8", "replace").split("\n")
    for number, line in enumerate(whole, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            warnings.warn(f"{path}: line {number} is not JSON; the report leaves it out", stacklevel=2)
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _by_iteration(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """In order, and of rows with the same iteration and tag the last: a resumed run may write one again."""
    latest = {(k, str(row.get("tag", ""))): row for row in rows if (k := numeric(row.get("iteration"))) is not None}
    return [latest[key] for key in sorted(latest)]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    return data if isinstance(data, dict) else {}
