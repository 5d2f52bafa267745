"""Seeds by name: every random choice is a function of a seed and of what the choice is for.

There is no generator state to save, so a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: str | int) -> int:
    """A number below 2**63 for one purpose: `derive_seed(recipe.seed, "shuffle", iteration)`.

    The same in every process; unrelated for other parts.
    """
    name = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1
