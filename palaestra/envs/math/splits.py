"""Which split a problem is in, by its text alone: whatever file it comes from, it is never in two."""

from __future__ import annotations

import hashlib

_TEST, _VALIDATION, _PARTS = 1, 1, 10


def same_text(problem: str) -> str:
    """Equal for problems that differ only in case and white space."""
    return " ".join(problem.casefold().split())


def split_of(problem: str) -> str:
    """`test` for a tenth of all problems, `validation` for another, `train` for the rest."""
    digest = hashlib.sha256(same_text(problem).encode("utf-8", "replace")).digest()
    part = int.from_bytes(digest[:8], "big") % _PARTS
    return "test" if part < _TEST else "validation" if part < _TEST + _VALIDATION else "train"
