"""From data to coordinates: linear scales, ticks that people like, and a colour map."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_VIRIDIS = (
    (68, 1, 84),
    (72, 40, 120),
    (62, 74, 137),
    (49, 104, 142),
    (38, 130, 142),
    (31, 158, 137),
    (53, 183, 121),
    (110, 206, 88),
    (181, 222, 43),
    (253, 231, 37),
)

_FLAT = 1e-9
"""Differences below this are noise of the arithmetic, not worth an axis."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Linear map of the data interval [low, high] to the coordinates [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Coordinate of `value`; values beyond the interval land on its border."""
        width = self.high - self.low
        share = (value - self.low) / width if width else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, count: int = 5, *, whole: bool = False) -> list[float]:
        """About `count` round numbers in the interval; `whole` keeps to integers."""
        step = nice_step((self.high - self.low) / max(1, count))
        step = max(1.0, step) if whole else step
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def nice_step(raw: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `raw`; 1 if that is not positive."""
    if not raw > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1 - 1e-9))


def extent(values: Iterable[float | None], *, zero: bool = True) -> tuple[float, float]:
    """An interval around all known values that ends on round numbers; from 0 if `zero` and nothing is negative."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    if high - low < _FLAT:
        high = low + (abs(low) if abs(low) > _FLAT else 1.0)
    step = nice_step((high - low) / 5)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def viridis(share: float) -> str:
    """Colour of `share` in [0, 1], as `#rrggbb`: perceptually even, readable by colour-blind people."""
    position = min(1.0, max(0.0, share)) * (len(_VIRIDIS) - 1)
    index = min(int(position), len(_VIRIDIS) - 2)
    mix = position - index
    pairs = zip(_VIRIDIS[index], _VIRIDIS[index + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * mix):02x}" for a, b in pairs)


def tick_label(value: float) -> str:
    """A tick as text: 0.25, 20, 1.5k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:g}"


def percent(value: float) -> str:
    """0.863 → 86 %; one decimal below 10 % where it matters."""
    points = value * 100
    shown = f"{points:.1f}" if 0 < points < 9.95 and abs(points - round(points)) > 0.04 else f"{points:.0f}"
    return f"{shown}\u202f%"
