"""Shuffling without generator state, so that a resumed run shuffles as the undisturbed one would have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palaestra.seeds import derive_seed


def permutation(size: int, seed: int, *parts: str | int) -> NDArray[np.int64]:
    """`range(size)` in a random order that `seed` and `parts` determine."""
    return np.random.default_rng(derive_seed(seed, *parts)).permutation(size)
