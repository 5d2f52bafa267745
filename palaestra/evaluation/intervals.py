"""Confidence intervals, so that no figure is shown without what it may be off by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

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


def bootstrap_mean(
    values: Sequence[float], *, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (B. Efron 1979).

    Args:
        values: at least one.
        level: probability that the interval is to cover.
        samples: resamples to draw; the generator is `seed`'s own.

    Returns:
        (low, high).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the mean of no values has no interval")
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    # One resample at a time: [samples, n] at once would need gigabytes for large evaluations.
    means = [data[generator.integers(0, len(data), len(data))].mean() for _ in range(samples)]
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
