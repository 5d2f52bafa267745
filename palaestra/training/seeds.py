"""Seeds by name: every random choice of a run is a function of its seed and of what the choice is for.

There is no generator state to save, so a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def derive_seed(seed: int, *parts: str | int) -> int:
    """A number below 2**63 for one purpose: `derive_seed(recipe.seed, "shuffle", iteration)`."""
    name = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def permutation(size: int, seed: int, *parts: str | int) -> NDArray[np.int64]:
    """`range(size)` in a random order."""
    return np.random.default_rng(derive_seed(seed, *parts)).permutation(size)
