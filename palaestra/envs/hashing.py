"""Hash chains over episodes: two episodes are the same exactly if their chains end alike."""

import hashlib
from typing import Any

import msgspec


def digest(*parts: Any) -> str:
    """128-bit hash, as 32 hex digits, of JSON-shaped values; the order of mapping keys does not matter.

    A part that is not JSON-shaped (an array, an object) counts with its type and `repr`.
    """
    packed = msgspec.msgpack.encode(parts, order="deterministic", enc_hook=_foreign)
    return hashlib.blake2b(packed, digest_size=16).hexdigest()


def chain(previous: str, *parts: Any) -> str:
    """The next link: a hash of everything so far (`previous`, empty at the start) and of `parts`."""
    return digest(previous, *parts)


def _foreign(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return f"{type(value).__qualname__}:{value!r}"
