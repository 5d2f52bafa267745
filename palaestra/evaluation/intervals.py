"""Confidence intervals, so that no figure is shown without what it may be off by."""

from __future__ import annotations

import math

import msgspec

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A share of successes with its interval."""

    value: float
    """Successes over `n`; 0 where `n` is 0."""
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}], n={self.n}"


def wilson(successes: int, n: int, z: float = Z95) -> Rate:
    """Wilson's score interval of a binomial share (E. B. Wilson 1927), 95 % by default.

    Never leaves [0, 1], contains the share, and is not empty at 0 or `n` successes. `n=0` gives [0, 1].

    Raises:
        ValueError: `successes` is not in [0, n].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} are not possible")
    if n == 0:
        return Rate(value=0.0, n=0, low=0.0, high=1.0)
    share = successes / n
    scale = 1.0 / (1.0 + z * z / n)
    centre = scale * (share + z * z / (2 * n))
    half = scale * z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Rate(value=share, n=n, low=low, high=high)
