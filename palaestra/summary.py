"""`summary.json` of a run directory: what came of it and what it took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from palaestra.errors import DataError
from palaestra.files import replace_text


class Costs(NamedTuple):
    """What a run took so far, all its sessions together."""

    wall_seconds: float = 0.0
    peak_rss_bytes: int = 0


def costs_so_far(directory: Path) -> Costs:
    """Those of the summary; nothing where there is none, or one that cannot be read."""
    try:
        summary = read_summary(directory)
    except DataError:
        return Costs()
    seconds, peak = (summary.get(key) for key in Costs._fields)
    return Costs(
        seconds if isinstance(seconds, int | float) else 0.0,
        peak if isinstance(peak, int) else 0,
    )


def read_summary(directory: Path) -> dict[str, Any]:
    """Its content.

    Raises:
        DataError: there is no summary, or it cannot be read.
    """
    path = directory / "summary.json"
    try:
        return {**json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def write_summary(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write it; a kill leaves the old file or the new one.

    Raises:
        PalaestraError: it cannot be written.
    """
    replace_text(directory / "summary.json", json.dumps(summary, indent=2) + "\n")


def amend_summary(directory: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set keys of it, and return all.

    Raises:
        DataError: there is no summary, or it cannot be read.
        PalaestraError: it cannot be written.
    """
    summary = {**read_summary(directory), **changes}
    write_summary(directory, summary)
    return summary
