"""Progress bars on standard error, so that standard output holds results only."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from palaestra.agents.engines.openai.usage import usage_of
from palaestra.trajectories.record import Trajectory

EpisodeProgress = Callable[[int, int, Trajectory | None], None]
"""As `palaestra.evaluation.evaluate` calls it: episodes done, episodes in all, the latest one."""


class Bars:
    """A block of progress bars; nothing is drawn where standard error is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def add(self, title: str, total: float | None = None) -> Callable[[float, float | None, str], None]:
        """A new bar; the function that is returned moves it to `done` of `total` and shows a note."""
        bar = self._progress.add_task(title, total=total, note="")

        def move(done: float, total: float | None, note: str = "") -> None:
            self._progress.update(bar, completed=done, total=total, note=note)

        return move

    def episodes(self, title: str) -> EpisodeProgress:
        """A bar of evaluation episodes, with the success so far."""
        move = self.add(title)
        seen = solved = 0
        cost: float | None = None

        def progress(done: int, total: int, latest: Trajectory | None) -> None:
            nonlocal seen, solved, cost
            if latest is not None:
                seen, solved = seen + 1, solved + latest.success
                if (spent := usage_of([latest])) is not None and spent.cost is not None:
                    cost = (cost or 0.0) + spent.cost
            note = f"{100 * solved / seen:.0f} % solved" if seen else ""
            move(done, total, note if cost is None else f"{note}, cost {cost:.4f}")

        return progress
