"""The entropy-reward law `R = b - a exp(H)` (Cui et al. 2025, arXiv 2505.22617), fitted to a run.

R is a success rate and H the policy's mean entropy in nats per token at the same time. Where the law holds, a run buys
reward with entropy, and what there is to buy ends at H = 0: the predicted ceiling `b - a`. A monitor only, nothing is
trained by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

LEAST_PAIRS = 3
"""Pairs with different entropies below which no law is fitted: two points lie on any line."""
_FLAT = 1e-6
"""Entropies in nats that differ by less are the same."""
_ABSURD = 100.0
"""No policy has so many nats a token; exp of it would drown everything else."""


class EntropyLaw(msgspec.Struct, frozen=True, kw_only=True):
    """The fit by least squares, or why there is none."""

    a: float | None = None
    """Reward that a unit of exp(H) costs; negative where reward rose with entropy."""
    b: float | None = None
    """Reward that entropy is taken from."""
    ceiling: float | None = None
    """`b - a`, the reward predicted at H = 0; may lie above 1, as nothing holds a line down."""
    r2: float | None = None
    """Share of the reward's variance that the law explains, at most 1; `None` where the reward never changed."""
    pairs: int = 0
    """How many (entropy, reward) pairs were used; those with a value that is not finite are left out."""
    source: str = ""
    """Where the rewards come from, as the caller says it."""
    reason: str = ""
    """Why there is no fit; empty where there is one."""

    def reward(self, entropy: float) -> float:
        """Reward that the law predicts at an entropy, in nats.

        Raises:
            ValueError: there is no fit.
        """
        if self.a is None or self.b is None:
            raise ValueError(f"no law was fitted: {self.reason}")
        return self.b - self.a * math.exp(entropy)


def fit_entropy_law(
    entropies: Sequence[float | None], rewards: Sequence[float | None], *, source: str = ""
) -> EntropyLaw:
    """Fit a and b to pairs of mean entropy (nats) and reward.

    Raises:
        ValueError: the two have different lengths.
    """
    known = [(h, r) for h, r in zip(entropies, rewards, strict=True) if h is not None and r is not None]
    pairs = [(math.exp(h), r) for h, r in known if math.isfinite(h) and math.isfinite(r) and h < _ABSURD]
    count, xs = len(pairs), [x for x, _ in pairs]
    distinct = _distinct([math.log(x) for x in xs if x > 0])
    if distinct == 1 and count >= LEAST_PAIRS:
        return EntropyLaw(pairs=count, source=source, reason="the entropy never changed")
    if distinct < LEAST_PAIRS:
        found = f"{distinct} different entropies beside a reward"
        return EntropyLaw(pairs=count, source=source, reason=f"{found}, and a fit needs {LEAST_PAIRS}")
    mean_x, mean_r = math.fsum(xs) / count, math.fsum(r for _, r in pairs) / count
    spread = math.fsum((x - mean_x) ** 2 for x in xs)
    a = -math.fsum((x - mean_x) * (r - mean_r) for x, r in pairs) / spread
    b = mean_r + a * mean_x
    total = math.fsum((r - mean_r) ** 2 for _, r in pairs)
    rest = math.fsum((r - b + a * x) ** 2 for x, r in pairs)
    r2 = 1 - rest / total if total > 1e-18 * count else None
    return EntropyLaw(a=a, b=b, ceiling=b - a, r2=r2, pairs=count, source=source)


def _distinct(values: list[float]) -> int:
    """How many differ by more than rounding, up to a chain of neighbours."""
    ordered = sorted(values)
    return sum(1 for i, value in enumerate(ordered) if i == 0 or value - ordered[i - 1] > _FLAT)
