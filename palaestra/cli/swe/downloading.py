"""Files from the package index, with a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palaestra.envs.swe.index import Pin


def download(pins: Sequence[Pin]) -> int:
    """Download those that the cache lacks, and return how many they were.

    Raises:
        DataError: the index cannot be reached, lacks one, or has another under its name.
    """
    from rich.console import Console
    from rich.progress import Progress

    from palaestra.envs.swe import index

    absent = index.missing(pins)
    if not absent:
        return 0
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("packages", total=len(absent))
        index.fetch_all(
            absent, lambda done, total, name: bars.update(bar, completed=done, total=total, description=name)
        )
    return len(absent)
