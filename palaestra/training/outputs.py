"""The growing files of a run, which the first rank writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palaestra.training.metrics import MetricsWriter
from palaestra.training.ranks import rank
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import TrajectoryWriter


class Nowhere:
    """Stands for either writer on the other ranks."""

    offset = 0
    """Of nothing."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def append(self, trajectory: Trajectory) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def check_offset(self, offset: int) -> None:
        """The first rank looks."""

    def truncate_to(self, offset: int) -> None:
        """The first rank does."""


@contextmanager
def opened(directory: Path, *, tensorboard: bool) -> Iterator[tuple[Any, Any]]:
    """`metrics.jsonl` and the episodes of training."""
    if rank():
        yield Nowhere(), Nowhere()
        return
    with (
        MetricsWriter(
            directory / "metrics.jsonl", tensorboard=directory / "tensorboard" if tensorboard else None
        ) as metrics,
        TrajectoryWriter(directory / "trajectories" / "train.ptj") as store,
    ):
        yield metrics, store
