"""What a task's `params` hold, read with suspicion; and the split that a thing belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from palaestra.errors import DataError


def whole(
    params: Mapping[str, Any], name: str, of: str, *, default: int | None = None, least: int = 0, most: int = 2**63 - 1
) -> int:
    """The whole number `params[name]`.

    Args:
        params: a task's.
        name: of the number.
        of: whose params they are, for the message: "a sokoban game".
        default: where there is none.
        least, most: its bounds, both included.

    Raises:
        DataError: it is missing without a default, is no whole number, or is out of bounds.
    """
    number = params.get(name, default)
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        bounds = f"from {least}" if most > 2**62 else f"from {least} to {most}"
        raise DataError(f"{name} of {of} is a whole number {bounds}, not {_shown(number)}")
    return number


def _shown(value: object) -> str:
    huge = isinstance(value, int) and abs(value) >= 2**64  # Python refuses to write out the largest
    return "a far larger one" if huge else repr(value)[:80]


def split_of(content: str) -> str:
    """`train`, `validation` or `test`, by a hash of what a thing *is*: 80, 10 and 10 % of all things.

    Generators draw until they have a thing of the wanted split, so that nothing is in two, whatever the seeds.
    """
    bucket = int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"
