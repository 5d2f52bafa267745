"""Many runs as one figure, and two methods against each other, after Agarwal et al. 2021 (arXiv 2108.13264).

Scores are grouped in *strata*, one an environment or task, each with one score per run (seed). With five seeds a mean
is at the mercy of one run and a median of one rank; the interquartile mean lies between, and its interval says what so
few runs can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Strata = Mapping[str, Sequence[float]]
"""Stratum -> score of each run; at least one stratum, none of them empty, nothing that is not finite."""

Resampled = Mapping[str, NDArray[np.float64]]
"""Stratum -> [runs] or [..., runs]: what a statistic reduces along the last axis, one result per leading index."""

Statistic = Callable[..., Any]
"""Called with one `Resampled` for each method; returns an array of the leading shape."""

RESAMPLES = 5000
"""Of a bootstrap; more make its last digit steadier, not the interval narrower."""
_CHUNK = 500
"""Resamples that are looked at at once: a matter of memory."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its bootstrap interval."""

    value: float
    """Of the scores themselves."""
    low: float
    high: float
    runs: int
    """Scores that it rests on, those of all methods and strata together."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interquartile_mean(scores: Resampled) -> Any:
    """Mean of the middle half of all scores, the strata taken together; a quarter, rounded down, goes at each end."""
    pooled = np.sort(np.concatenate([np.asarray(values, dtype=np.float64) for values in scores.values()], axis=-1), -1)
    cut = pooled.shape[-1] // 4
    return pooled[..., cut : pooled.shape[-1] - cut].mean(-1)


def mean_score(scores: Resampled) -> Any:
    """Mean over strata of the mean over runs."""
    return np.mean([np.asarray(values, dtype=np.float64).mean(-1) for values in scores.values()], axis=0)


def probability_of_improvement(ours: Resampled, theirs: Resampled) -> Any:
    """Chance that a run of ours scores higher than one of theirs, ties counting half; mean over the strata.

    0.5 says that neither is better. It tells how often, not by how much.

    Raises:
        ValueError: the strata are not the same.
    """
    if ours.keys() != theirs.keys():
        raise ValueError(f"cannot compare strata {sorted(ours)} with {sorted(theirs)}")
    chances = []
    for name, left in ours.items():
        gap = (
            np.asarray(left, dtype=np.float64)[..., :, None] - np.asarray(theirs[name], dtype=np.float64)[..., None, :]
        )
        chances.append(((gap > 0) + 0.5 * (gap == 0)).mean((-2, -1)))
    return np.mean(chances, axis=0)


def difference_of_iqm(ours: Resampled, theirs: Resampled) -> Any:
    """Interquartile mean of ours less that of theirs."""
    return interquartile_mean(ours) - interquartile_mean(theirs)


def stratified_bootstrap(
    statistic: Statistic, *methods: Strata, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Estimate:
    """A statistic of one method or more with its percentile interval.

    Runs are drawn anew, with replacement, within each stratum of each method; strata themselves are never drawn, as
    the environments of a study are no sample of anything. Where the percentiles leave the value itself out (few runs,
    ties) the interval is widened to it.

    Raises:
        ValueError: a method has no strata, an empty one, or scores that are not finite.
    """
    known = [_checked(method) for method in methods]
    value = float(statistic(*known))
    rng, draws = np.random.default_rng(seed), []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        draws.append(np.atleast_1d(statistic(*({k: _redraw(v, count, rng) for k, v in m.items()} for m in known))))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    runs = sum(len(values) for method in known for values in method.values())
    return Estimate(value=value, low=min(value, float(low)), high=max(value, float(high)), runs=runs)


def _redraw(values: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[count, runs]."""
    return values[rng.integers(0, len(values), (count, len(values)))]


def _checked(method: Strata) -> dict[str, NDArray[np.float64]]:
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in method.items()}
    if not arrays or any(not len(values) for values in arrays.values()):
        raise ValueError("a method needs at least one stratum, and each of them at least one run")
    if not all(np.isfinite(values).all() for values in arrays.values()):
        raise ValueError("scores must be finite")
    return arrays
