"""How fast suites are: figures that `benchmarks/suites.py --write` took on one machine, to compare suites by."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

FILE = Path(__file__).with_name("measured.json")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, and where."""

    machine: str
    """In words."""
    date: str
    suites: dict[str, dict[str, float | str | None]]
    """Suite -> `steps_per_second` through `Env.step`, `memory_bytes` of a further instance, and what else there is."""


def measured(suite: str) -> dict[str, Any]:
    """The figures of a suite; nothing where there are none."""
    return dict(figures().suites.get(suite, {}))


@lru_cache(1)
def figures() -> Figures:
    """All of them."""
    return msgspec.json.decode(FILE.read_bytes(), type=Figures)
