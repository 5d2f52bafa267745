"""The finished runs of the study, by environment and setting."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.study import Study
from palaestra.errors import DataError

Record = dict[str, Any]
"""As `record.make_record` makes it."""

Results = dict[str, dict[str, list[Record]]]
"""Environment -> setting -> runs by seed; in the order of `study.yaml`, without what has no runs."""

Score = Callable[[Record], float]
"""One number of a run."""


def load_results(study: Study) -> Results:
    """All records.

    Raises:
        DataError: a record is damaged, or two of one environment began with other weights or under other recipes.
    """
    results: Results = {}
    for environment in study.environments:
        found = {setting: _records(study.data / environment, setting) for setting in study.settings}
        known = {setting: records for setting, records in found.items() if records}
        if known:
            _check(environment, [record for records in known.values() for record in records])
            results[environment] = known
    return results


def test_success(record: Record) -> float:
    """Success on the held-out test tasks after training."""
    return float(record["test"]["value"])


def training_success(record: Record) -> float:
    """Mean success of the training episodes over all iterations: how fast it was learned."""
    return float(np.mean(record["iterations"]["success"]))


def entropy_roughness(record: Record) -> float:
    """Mean change of the entropy from one iteration to the next, up or down, over its mean."""
    entropy = np.array(record["iterations"]["entropy"], dtype=np.float64)
    return float(np.abs(np.diff(entropy)).mean() / entropy.mean())


def turn_roughness(record: Record) -> float:
    """As `entropy_roughness`, of each turn's own entropy, averaged over the turns that every iteration has."""
    rows = record["iterations"]["entropy_by_turn"]
    shared = min(len(row) for row in rows)
    turns = np.array([row[:shared] for row in rows], dtype=np.float64)
    steady = turns[:, ~np.isnan(turns).any(0)]
    return float((np.abs(np.diff(steady, axis=0)).mean(0) / steady.mean(0).clip(1e-6)).mean())


def late_entropy(record: Record) -> float:
    """Mean entropy over the last quarter of the iterations, relative to the first iteration's."""
    entropy = record["iterations"]["entropy"]
    return float(np.mean(entropy[-max(1, len(entropy) // 4) :]) / entropy[0])


def middle_entropy(record: Record) -> float:
    """Mean entropy over the middle half of the iterations, relative to the first iteration's."""
    entropy = record["iterations"]["entropy"]
    quarter = len(entropy) // 4
    return float(np.mean(entropy[quarter : len(entropy) - quarter]) / entropy[0])


def branch_share(record: Record) -> float:
    """Share of all branches that fell on the three paths of their group that had most, mean over iterations."""
    shares = [share for share in record["iterations"].get("branch_top3", ()) if share is not None]
    return float(np.mean(shares)) if shares else float("nan")


def scores(records: Sequence[Record], score: Score) -> list[float]:
    """One number a run."""
    return [score(record) for record in records]


def mean_curve(records: Sequence[Record], key: str) -> list[float | None]:
    """Mean over runs of a metric at each iteration; `None` where no run has it."""
    columns = zip(*(record["iterations"].get(key, ()) for record in records), strict=False)
    known = [[value for value in column if value is not None] for column in columns]
    return [float(np.mean(values)) if values else None for values in known]


def _records(folder: Path, setting: str) -> list[Record]:
    found = []
    for path in folder.glob(f"{setting}-*.json"):
        if path.stem.removeprefix(f"{setting}-").isdigit():
            try:
                found.append(json.loads(path.read_text("utf-8")))
            except ValueError as error:
                raise DataError(f"{path} is damaged: {error}") from error
    return sorted(found, key=lambda record: int(record["seed"]))


def _check(environment: str, records: list[Record]) -> None:
    for what, of in (
        ("weights", lambda r: r["weights"]),
        ("recipe", lambda r: json.dumps(r["conditions"]["recipe"], sort_keys=True)),
    ):
        if len({of(record) for record in records}) > 1:
            raise DataError(f"runs of {environment} began with different {what}: they cannot stand side by side")
